"""What it costs that an engine runs in a process of its own.

    python benchmarks/process_boundary.py [--jobs 1 8 32 1000] [--seconds 4]

The engine is a scripted one, whose steps take no time of their own: each is one delta of one token for
every job. The same jobs run on an endpoint in this process and on one with a child. Of each: tokens per
second as fast as they come (both processes share the machine, so two cores are needed to see that
they run beside one another), CPU time per token of both processes together and of the server's alone.
Then steps come every 20 ms, and *late* is how long after its step began a delta was in the reader's
hand; what is added is the difference between the two endpoints.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
from machine import machine
from stepping import SteppingEngine

from parrot_backend.endpoints.base import Endpoint, Job
from parrot_backend.endpoints.local import LocalEndpoint
from parrot_backend.endpoints.process.endpoint import ProcessEndpoint
from parrot_backend.endpoints.process.recipe import Recipe
from parrot_backend.wire.text_protocol import PromptRequest

PERIOD = 0.02


@dataclass(frozen=True, slots=True)
class Measured:
    """Tokens, what they took, and how late each delta was, in seconds."""

    tokens: int
    wall: float
    own_cpu: float
    child_cpu: float
    late: list[float]


async def endpoint_of(kind: str, period: float, stack: AsyncExitStack) -> tuple[Endpoint, int]:
    """A ready one, and the process of its child, 0 for none."""
    if kind == "here":
        endpoint: Endpoint = LocalEndpoint(SteppingEngine(period))
        stack.push_async_callback(endpoint.aclose)
        return endpoint, 0
    child = ProcessEndpoint(Recipe({"period": period}, "benchmarks.stepping:SteppingEngine"))
    stack.push_async_callback(child.aclose)
    await child.start()
    return child, child.pid or 0


async def measured(kind: str, jobs: int, period: float, seconds: float) -> Measured:
    """Run so many jobs for so many seconds."""
    async with AsyncExitStack() as stack:
        endpoint, pid = await endpoint_of(kind, period, stack)
        late: list[float] = []
        tokens = 0
        end = time.perf_counter() + seconds

        async def read() -> None:
            nonlocal tokens
            job = Job(PromptRequest(prompt="once upon a time", max_tokens=10**6))
            async with aclosing(endpoint.generate(job)) as deltas:
                async for delta in deltas:
                    late.append(time.time() - (delta.started or 0))
                    tokens += 1
                    if time.perf_counter() > end:
                        return

        wall, own, other = time.perf_counter(), time.process_time(), cpu_of(pid)
        await asyncio.gather(*(read() for _ in range(jobs)))
        return Measured(
            tokens,
            time.perf_counter() - wall,
            time.process_time() - own,
            cpu_of(pid) - other,
            late,
        )


def cpu_of(pid: int) -> float:
    """Seconds that another process has computed."""
    if not pid:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def percentile(values: list[float], percent: int) -> float:
    """Of many values."""
    return statistics.quantiles(values, n=100)[percent - 1]


def row(run: Callable[[str, float], Measured], jobs: int) -> str:
    """Both endpoints beside one another."""
    ours, childs = run("here", 0), run("child", 0)
    timed = {kind: run(kind, PERIOD).late for kind in ("here", "child")}
    cells = [f"{jobs:>5}"]
    for one in (ours, childs):
        cells.append(f"{one.tokens / one.wall:>9.0f}/s")
        cells.append(f"{(one.own_cpu + one.child_cpu) / one.tokens * 1e6:>6.1f}")
    cells.append(f"{childs.own_cpu / childs.tokens * 1e6:>6.1f}")
    for percent in (50, 99):
        here, child = (percentile(timed[kind], percent) * 1e3 for kind in ("here", "child"))
        cells.append(f"{here:>7.2f} {child:>7.2f} {child - here:>+7.2f}")
    return "  ".join(cells)


def main() -> None:
    """Measure and print the table."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--jobs", type=int, nargs="+", default=[1, 8, 32, 1000])
    options.add_argument("--seconds", type=float, default=4)
    args = options.parse_args()
    print(machine())
    print(
        "\n       in one process      with a child                    late p50, ms"
        "             late p99, ms"
        "\n jobs     tokens  us CPU     tokens  us CPU  server's     here  child   added"
        "     here  child   added"
    )
    for jobs in args.jobs:

        def run(kind: str, period: float, jobs: int = jobs) -> Measured:
            return asyncio.run(measured(kind, jobs, period, args.seconds))

        print(row(run, jobs), flush=True)


if __name__ == "__main__":
    main()
