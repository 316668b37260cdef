"""Steps over random trees of sequences."""

from hypothesis import strategies as st

from parrot_backend.engines.torch_engine.forward.attention import Span
from parrot_backend.engines.torch_engine.memory.slots import (
    Run,
    append_runs,
    count_slots,
    split_runs,
)


def slots_of(runs: list[Run]) -> list[int]:
    return [slot for start, length in runs for slot in range(start, start + length)]


def seen_by_rows(spans: list[Span]) -> list[list[int]]:
    """The slots that each row of a step sees, in order."""
    return [
        slots_of(split_runs(span.runs, span.start + offset + 1)[0])
        for span in spans
        for offset in range(span.count)
    ]


@st.composite
def steps(draw: st.DrawFn, longest: int, most_rows: int, depth: int = 3) -> list[Span]:
    """Sequences along the paths of a forest; the last tokens of each, its own, are the step's rows.

    Runs have up to `longest` slots, sequences up to `most_rows` rows. Nodes can be prefixes only, or
    the beginning of a sequence as well.
    """
    free = 0

    def node() -> list[Run]:
        nonlocal free
        runs: list[Run] = []
        for length in draw(st.lists(st.integers(1, longest), min_size=1, max_size=2)):
            free += draw(st.integers(0, 2))
            append_runs(runs, [Run(free, length)])
            free += length
        return runs

    def sequence(prefix: list[Run]) -> Span:
        runs, own = list(prefix), node()
        append_runs(runs, own)
        count = draw(st.integers(1, min(most_rows, count_slots(own))))
        return Span(count_slots(runs) - count, count, runs)

    def grow(prefix: list[Run], level: int) -> list[Span]:
        children = draw(st.integers(0, 2)) if level < depth else 0
        here = list(prefix)
        if children:
            append_runs(here, node())
        below = [span for _ in range(children) for span in grow(here, level + 1)]
        return [*below, sequence(here)] if not below or draw(st.booleans()) else below

    return [span for _ in range(draw(st.integers(1, 2))) for span in grow([], 0)]
