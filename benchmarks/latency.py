"""What a request costs beside the model, whose place the tests' scripted engine takes.

    python benchmarks/latency.py [--requests 200] [--tokens 32] [--pace 5]

One client with one kept connection asks over TCP, over a Unix socket, and over TCP as it was, on a
socket that is not said to be TCP's (answers wait for a delayed acknowledgement there). Each way has a
server process of its own, and the ways take turns, request by request. Printed are milliseconds, median
and 99th percentile, and the median over that of TCP: of `GET /v1/models`, a chat of one token, and, for
an answer that streams a token every `--pace` ms, the time from the engine's step to the client.
"""

import argparse
import asyncio
import json
import math
import multiprocessing
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

import httpx
from machine import machine

sys.path.append(str(Path(__file__).parents[1]))
from parrot_backend.api.app import create_app
from parrot_backend.endpoints.local import LocalEndpoint
from parrot_backend.engines.base import Delta, GenerationRequest
from parrot_backend.server import bind, bind_unix, run, url_of
from parrot_backend.serving.dispatch.fleet import Fleet, Member
from tests.doubles import ScriptedEngine

STREAM = "stream"
WARM_UP = 5
PACKAGES = ("fastapi", "uvicorn", "h11", "httpx")
WAYS: dict[str, Callable[[str], socket.socket]] = {
    "TCP": lambda _: bind("127.0.0.1", 0),
    "Unix socket": bind_unix,
    "TCP as it was": lambda _: socket.create_server(("127.0.0.1", 0)),
}
Measure = Callable[[httpx.Client], list[float]]


class PacedEngine(ScriptedEngine):
    """Answers a token at its pace, each the time at which it was made; to a chat at once, with one."""

    def __init__(self, tokens: int, pace: float) -> None:
        super().__init__(script=lambda _: "x")
        self._tokens = tokens
        self._pace = pace

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """The answer to "stream", or to any other prompt."""
        if request.prompt != self.tokenize(STREAM):
            async for delta in super().generate(request):
                yield delta
            return
        for left in reversed(range(self._tokens)):
            await asyncio.sleep(self._pace)
            reason = None if left else "stop"
            yield Delta(str(time.perf_counter()), (0,), 0, reason)


def serve(way: str, path: str, tokens: int, pace: float, address: Connection) -> None:
    """A server process until its end."""
    listener = WAYS[way](path)
    run(
        create_app(Fleet(Member("local", LocalEndpoint(PacedEngine(tokens, pace))))),
        listener,
        on_ready=lambda: address.send(url_of(listener)),
        grace_seconds=1,
    )


@contextmanager
def client_of(way: str, folder: str, tokens: int, pace: float) -> Iterator[httpx.Client]:
    """A client of a server that is reached in this way."""
    ours, theirs = multiprocessing.Pipe()
    path = f"{folder}/{way.replace(' ', '-')}"
    told = (way, path, tokens, pace, theirs)
    process = multiprocessing.Process(target=serve, args=told, daemon=True)
    process.start()
    url: str = ours.recv()
    uds = url.removeprefix("unix:") if url.startswith("unix:") else None
    base = "http://parrot" if uds else url
    with httpx.Client(base_url=base, transport=httpx.HTTPTransport(uds=uds), timeout=30) as client:
        yield client
    process.terminate()
    process.join()


def milliseconds_since(begin: float) -> float:
    """From a moment of the clock until now."""
    return (time.perf_counter() - begin) * 1000


def models(client: httpx.Client) -> list[float]:
    """One request without a body."""
    begin = time.perf_counter()
    client.get("/v1/models").raise_for_status()
    return [milliseconds_since(begin)]


def chat(client: httpx.Client) -> list[float]:
    """One chat of one token."""
    begin = time.perf_counter()
    client.post("/v1/chat/completions", json=body("hello")).raise_for_status()
    return [milliseconds_since(begin)]


def stream(client: httpx.Client) -> list[float]:
    """How long each token of a stream was on its way."""
    request = body(STREAM) | {"stream": True}
    times = []
    with client.stream("POST", "/v1/chat/completions", json=request) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                delta = json.loads(line.removeprefix("data: "))["choices"][0]["delta"]
                times.append(milliseconds_since(float(delta["content"])))
    return times


def body(content: str) -> dict[str, object]:
    """Of a chat."""
    return {"messages": [{"role": "user", "content": content}]}


def measured(name: str, measure: Measure, clients: dict[str, httpx.Client], times: int) -> None:
    """Print a row for each way."""
    found: dict[str, list[float]] = {way: [] for way in clients}
    for number in range(WARM_UP + times):
        for way, client in clients.items():
            figures = measure(client)
            found[way] += figures if number >= WARM_UP else ()
    _print(name, found)


def _print(name: str, found: dict[str, list[float]]) -> None:
    usual = statistics.median(found["TCP"])
    for way, times in found.items():
        median = statistics.median(times)
        worst = sorted(times)[math.ceil(0.99 * len(times)) - 1]
        print(f"{name:20}{way:16}{median:9.2f}{worst:9.2f}{median / usual:8.2f}")


def main() -> None:
    """Print the figures."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--requests", type=int, default=200)
    options.add_argument("--tokens", type=int, default=32)
    options.add_argument("--pace", type=float, default=5, help="ms from token to token")
    args = options.parse_args()
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    print(f"{machine()}\nPython {sys.version.split()[0]}, {packages}")
    print(
        f"{args.requests} requests each way, {args.tokens} tokens a stream, one every {args.pace} ms\n"
    )
    print(f"{'':36}{'median':>9}{'p99':>9}{'ratio':>8}  (ms)")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        clients = {
            way: stack.enter_context(client_of(way, folder, args.tokens, args.pace / 1000))
            for way in WAYS
        }
        measured("GET /v1/models", models, clients, args.requests)
        measured("chat of one token", chat, clients, args.requests)
        measured("streamed token", stream, clients, max(args.requests // 10, 1))


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    main()
