"""Token slots: which of the KV memory's places are free, handed out in runs as long as can be had."""

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import NamedTuple


class Run(NamedTuple):
    """Slots `start` up to, without, `start + length`."""

    start: int
    length: int


def count_slots(runs: Iterable[Run]) -> int:
    """The number of slots in `runs`."""
    return sum(run.length for run in runs)


def append_runs(runs: list[Run], more: Iterable[Run]) -> None:
    """Append `more` to `runs` in place; a run that continues the last one is joined with it."""
    for run in more:
        if runs and runs[-1].start + runs[-1].length == run.start:
            runs[-1] = Run(runs[-1].start, runs[-1].length + run.length)
        else:
            runs.append(run)


def split_runs(runs: Iterable[Run], at: int) -> tuple[list[Run], list[Run]]:
    """The first `at` slots of `runs`, and the others."""
    left: list[Run] = []
    right: list[Run] = []
    for run in runs:
        taken = min(run.length, at)
        if taken:
            left.append(Run(run.start, taken))
        if taken < run.length:
            right.append(Run(run.start + taken, run.length - taken))
        at -= taken
    return left, right


class SlotAllocator:
    """The free slots of `capacity`, as maximal runs."""

    def __init__(self, capacity: int) -> None:
        self.free = capacity
        self._lengths: dict[int, int] = {}
        self._starts: list[int] = []
        self._add(0, capacity)

    def allocate(self, count: int, after: int | None = None) -> list[Run]:
        """Take `count` slots, first those that follow on slot `after`, then from the longest runs.

        A new run is laid in the middle of the longest free one, so that it and its neighbour both
        have room to grow.

        Raises:
            ValueError: fewer than `count` slots are free.
        """
        if count > self.free:
            raise ValueError(f"{count} slots wanted, {self.free} are free")
        runs: list[Run] = []
        if count and after is not None and after + 1 in self._lengths:
            append_runs(runs, [self._take(after + 1, 0, min(count, self._lengths[after + 1]))])
        while (missing := count - count_slots(runs)) > 0:
            start = max(self._lengths, key=self._lengths.__getitem__)
            taken = min(missing, self._lengths[start])
            append_runs(runs, [self._take(start, (self._lengths[start] - taken) // 2, taken)])
        return runs

    def release(self, runs: Iterable[Run]) -> None:
        """Give slots back; they join the free runs beside them."""
        for start, length in runs:
            self.free += length
            index = bisect_left(self._starts, start)
            if index < len(self._starts) and self._starts[index] == start + length:
                length += self._discard(start + length)
            if index > 0:
                before = self._starts[index - 1]
                if before + self._lengths[before] == start:
                    start, length = before, length + self._discard(before)
            self._add(start, length)

    def free_runs(self) -> list[Run]:
        """The free runs, in the order of their slots."""
        return [Run(start, self._lengths[start]) for start in self._starts]

    def _take(self, start: int, offset: int, count: int) -> Run:
        rest = self._discard(start) - offset - count
        self._add(start, offset)
        self._add(start + offset + count, rest)
        self.free -= count
        return Run(start + offset, count)

    def _add(self, start: int, length: int) -> None:
        if length > 0:
            self._lengths[start] = length
            insort(self._starts, start)

    def _discard(self, start: int) -> int:
        del self._starts[bisect_left(self._starts, start)]
        return self._lengths.pop(start)
