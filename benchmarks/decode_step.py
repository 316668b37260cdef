"""Where the time of our engine's decode step goes, by torch's profiler."""

import random
import statistics

from workloads import Bench, decode_jobs

BATCH = 16
PRODUCTS = ("linear", "addmm", "::mm", "::bmm", "int_mm")


def decode_step(bench: Bench) -> str:
    """The step's milliseconds, and the share of the weights' matrix products and of all else.

    A profiler slows small operators down, and doesn't see compiled attention: so the step is timed
    without it, and the rest is what the products leave of it.
    """
    steps = bench.length(64) - 1
    step = statistics.median(_seconds(bench, trial) for trial in range(3)) / steps
    operators = _operator_seconds(bench)
    products = sum(s for name, s in operators.items() if any(part in name for part in PRODUCTS))
    share = products / steps / step
    return (
        f"{step * 1e3:.1f} ms, {share:.0%} matrix products, {1 - share:.0%} attention and all else"
    )


def _seconds(bench: Bench, trial: int) -> float:
    whole, first = decode_jobs(bench, random.Random(f"timed {trial}"), BATCH)
    return bench.peer.run(whole).seconds - bench.peer.run(first).seconds


def _operator_seconds(bench: Bench) -> dict[str, float]:
    """Of the decode steps alone: the same prompts' prefill is taken off."""
    whole, first = decode_jobs(bench, random.Random("profiled"), BATCH)
    seconds = bench.peer.run(whole, profile=True).operators
    prefill = bench.peer.run(first, profile=True).operators
    return {name: total - prefill.get(name, 0) for name, total in seconds.items()}
