"""A chain run natively and compiled, in turn."""

import asyncio
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.runnables import Runnable

from parrot_integrations.langchain import ChatParrot, compile
from parrot_integrations.planning.session import PlannedSession

sys.path.append(str(Path(__file__).parents[1]))
from tests.integrations.langchain.corpus.entry import Entry

WARM_UP = 2
PAUSE = 0.01
Run = Callable[[Runnable[Any, Any], Any, Any], Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """Milliseconds of each pair of runs, and what became of a compiled run's calls."""

    native: list[float]
    compiled: list[float]
    claimed: int
    dependent: int
    ahead: int

    def added(self) -> list[float]:
        """Milliseconds that compiling adds to a run, of each pair."""
        return [c - n for n, c in zip(self.native, self.compiled, strict=True)]

    def ratios(self) -> list[float]:
        """Compiled over native, of each pair."""
        return [c / n for n, c in zip(self.native, self.compiled, strict=True)]

    def slower(self) -> bool:
        """Whether compiled is slower than native beyond what native ones differ by."""
        return statistics.median(self.compiled) > max(self.native)


def runs_in(runner: asyncio.Runner, mode: str) -> Run:
    """How chains are run in a mode; all coroutines share one event loop, as in a server."""

    def invoke(chain: Runnable[Any, Any], value: Any, config: Any) -> Any:
        return chain.invoke(value, config)

    def ainvoke(chain: Runnable[Any, Any], value: Any, config: Any) -> Any:
        return runner.run(chain.ainvoke(value, config))

    return invoke if mode == "invoke" else ainvoke


def measure(entry: Entry, llm: ChatParrot, run: Run, rounds: int, may_fail: bool) -> Measured:
    """Run a chain both ways, each time first another one; no run remembers any other."""
    sessions: list[PlannedSession] = []
    chains = {
        "native": entry.build(llm),
        "compiled": compile(entry.build(llm), on_session=sessions.append),
    }
    times: dict[str, list[float]] = {way: [] for way in chains}
    counts: list[tuple[int, int, int]] = []
    for number in range(WARM_UP + rounds):
        sessions.clear()
        for way in sorted(chains, reverse=number % 2 == 0):
            begin = time.perf_counter()
            with suppress(*((Exception,) if may_fail else ())):
                run(chains[way], entry.input, entry.config(number))
            times[way].append((time.perf_counter() - begin) * 1000)
            time.sleep(PAUSE)
        counts.append(_counts(sessions))
    medians = map(statistics.median_low, zip(*counts[WARM_UP:], strict=True))
    return Measured(times["native"][WARM_UP:], times["compiled"][WARM_UP:], *medians)


def _counts(sessions: list[PlannedSession]) -> tuple[int, int, int]:
    views = [session.view() for session in sessions]
    return (
        sum(view.claimed for view in views),
        sum(view.dependent for view in views),
        sum(view.ahead for view in views),
    )
