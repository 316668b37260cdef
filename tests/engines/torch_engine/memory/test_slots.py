"""Slots are handed out once, in long runs, and come back whole."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.engines.torch_engine.memory.slots import (
    Run,
    SlotAllocator,
    append_runs,
    count_slots,
    split_runs,
)

runs_of = st.lists(st.builds(Run, st.integers(0, 50), st.integers(1, 9)), max_size=6)


def slots(runs: list[Run]) -> list[int]:
    return [slot for run in runs for slot in range(run.start, run.start + run.length)]


@given(runs_of, st.integers(0, 60))
def test_split_runs_are_the_same_slots(runs: list[Run], at: int) -> None:
    left, right = split_runs(runs, at)
    assert slots(left) + slots(right) == slots(runs)
    assert count_slots(left) == min(at, count_slots(runs))


@given(runs_of, runs_of)
def test_appended_runs_are_the_same_slots(runs: list[Run], more: list[Run]) -> None:
    joined: list[Run] = []
    append_runs(joined, runs)
    append_runs(joined, more)
    assert slots(joined) == slots(runs) + slots(more)
    assert all(a.start + a.length != b.start for a, b in pairwise(joined))


def test_a_growing_sequence_stays_in_one_run() -> None:
    allocator = SlotAllocator(1000)
    first = allocator.allocate(10)
    allocator.allocate(10)
    for _ in range(100):
        append_runs(first, allocator.allocate(1, first[-1].start + first[-1].length - 1))
    assert [run.length for run in first] == [110]


def test_more_than_there_is_is_refused_and_nothing_is_taken() -> None:
    allocator = SlotAllocator(5)
    with pytest.raises(ValueError, match="6 slots wanted, 5 are free"):
        allocator.allocate(6)
    assert allocator.free_runs() == [Run(0, 5)]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(0, 63)), max_size=60))
def test_no_slot_is_handed_out_twice_and_free_runs_are_maximal(
    operations: list[tuple[bool, int, int]],
) -> None:
    allocator = SlotAllocator(64)
    held: list[list[Run]] = []
    for release, count, where in operations:
        if release and held:
            allocator.release(held.pop(where % len(held)))
        elif count <= allocator.free:
            held.append(allocator.allocate(count, where))
            assert count_slots(held[-1]) == count
        free = allocator.free_runs()
        taken = [slot for runs in held for slot in slots(runs)]
        assert sorted(taken + slots(free)) == list(range(64))
        assert allocator.free == count_slots(free)
        assert all(a.start + a.length < b.start for a, b in pairwise(free))
