"""Where calls go, simulated: ours against round robin, least loaded and session affinity.

    python benchmarks/placement.py [--engines 1 4 16 64] [--tasks 150] [--seeds 2] [--quick]

Engines of one speed compute prompts first come first served, in chunks beside the answers that they
generate together, and keep what they computed until their memory is full. Every policy has the same
tasks at the same times and the same queue, interactive ones first, from which a task is bound when
there is a place; only where it goes is another. Ours knows neither the engines' speed nor how long
answers are.

Printed are the share of prompt tokens that were cached; the seconds that interactive calls took, the
median and the 99th percentile; of applications of several calls, how long they took (mean), and the
whole; the evenness between tenants (Jain's index of how much slower their calls were than alone: 1 is
even); and choices a second, with all that is told between them. The best of a column is marked; a
workload in which nothing is shared is one of them, for there ours can only lose. `--quick` is for
tests.
"""

import argparse
import platform
import random
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
from machine import machine
from placement_engines import Speed
from placement_policies import POLICIES
from placement_simulation import Outcome, Simulation
from placement_workloads import WORKLOADS, Task

COLUMNS = ("hit rate", "chat p50", "chat p99", "app mean", "makespan", "Jain", "choices/s")
_HIGHER = ("hit rate", "Jain")
_ALIKE = 1.01
_SLOTS = Speed(prefill=400.0, step=0.030, each=0.010, chunk=128, slots=4, sharing="slot")


def row(outcome: Outcome, speed: Speed) -> list[float]:
    """A number for each of COLUMNS; NaN where there is none."""
    chats = sorted(seconds for task, seconds in outcome.took.items() if task.interactive)
    applications = _applications(outcome)
    return [
        outcome.cached / outcome.prompt,
        chats[len(chats) // 2] if chats else float("nan"),
        chats[int(len(chats) * 0.99)] if chats else float("nan"),
        statistics.mean(applications) if applications else float("nan"),
        outcome.end,
        _evenness(outcome, speed),
        outcome.choices / max(outcome.thinking, 1e-9),
    ]


def _applications(outcome: Outcome) -> list[float]:
    spans: dict[int, tuple[float, float]] = {}
    for task, took in outcome.took.items():
        if task.application is not None:
            came = outcome.ready[task]
            first, last = spans.get(task.application, (came, 0.0))
            spans[task.application] = (min(first, came), max(last, came + took))
    return [last - first for first, last in spans.values()]


def _evenness(outcome: Outcome, speed: Speed) -> float:
    slower: dict[str, list[float]] = defaultdict(list)
    for task, took in outcome.took.items():
        alone = task.tokens / speed.prefill + task.answer * (speed.step + speed.each)
        slower[task.tenant].append(took / alone)
    means = [statistics.mean(values) for values in slower.values()]
    return sum(means) ** 2 / (len(means) * sum(mean * mean for mean in means))


def measure(
    workload: str, engines: int, tasks: int, seeds: int, speed: Speed
) -> dict[str, list[float]]:
    """The mean over the seeds of each column, by policy."""
    rows = {}
    for policy, make in POLICIES.items():
        runs = []
        for seed in range(seeds):
            made: list[Task] = WORKLOADS[workload](random.Random(seed), engines, tasks)
            runs.append(row(Simulation(made, engines, speed, make).run(), speed))
        rows[policy] = [statistics.mean(column) for column in zip(*runs, strict=True)]
    return rows


def table(title: str, rows: dict[str, list[float]]) -> None:
    """Print it, the best of each column marked."""
    print(f"\n{title:<34}" + "".join(f"{name:>12}" for name in COLUMNS))
    for policy, numbers in rows.items():
        cells = []
        for index, (name, number) in enumerate(zip(COLUMNS, numbers, strict=True)):
            others = [other[index] for other in rows.values()]
            best = (
                number * _ALIKE >= max(others)
                if name in _HIGHER
                else number <= min(others) * _ALIKE
            )
            text = f"{number:,.0f}" if name == "choices/s" else f"{number:.3g}"
            cells.append(f"{text + ('*' if best and name != 'choices/s' else ' '):>12}")
        print(f"  {policy:<32}" + "".join(cells), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table for each workload and number of engines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--engines", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--tasks", type=int, default=150, help="for each engine")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--workloads", nargs="+", default=[*WORKLOADS], choices=[*WORKLOADS])
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args(arguments)
    engines, tasks, seeds = given.engines, given.tasks, given.seeds
    if given.quick:
        engines, tasks, seeds = [1, 4], 50, 1
    print(machine())
    print(f"Python {platform.python_version()}; {tasks} tasks an engine, {seeds} seeds; {Speed()}")
    print(f"On slots: {_SLOTS}")
    for workload in given.workloads:
        speed = _SLOTS if "slots" in workload else Speed()
        for number in engines:
            rows = measure(workload, number, tasks, seeds, speed)
            table(f"{workload}, {number} engines", rows)


if __name__ == "__main__":
    main()
