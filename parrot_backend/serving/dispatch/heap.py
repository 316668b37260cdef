"""`KeyedHeap`: a priority queue whose items can be given another key, or be taken out."""

import itertools
from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import Any, Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)
Key = Any  # tuples or numbers, all of one heap alike

_FEW = 64


class KeyedHeap(Generic[Item]):
    """The lowest key first, then who came first.

    A change leaves the old entry where it is, to be dropped when it comes up; so each costs O(log n),
    and where more than half are old, all of them go at once.
    """

    def __init__(self) -> None:
        self._entries: list[tuple[Key, int, Item]] = []
        self._current: dict[Item, int] = {}
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._current)

    def __contains__(self, item: Item) -> bool:
        return item in self._current

    def put(self, item: Item, key: Key) -> None:
        """Add an item, or give it another key; then it came last."""
        number = next(self._numbers)
        self._current[item] = number
        heappush(self._entries, (key, number, item))
        if len(self._entries) > 2 * len(self._current) + _FEW:
            current = self._current
            self._entries = [entry for entry in self._entries if current.get(entry[2]) == entry[1]]
            heapify(self._entries)

    def remove(self, item: Item) -> None:
        """Take an item out, if it is there."""
        self._current.pop(item, None)
        if not self._current:
            self._entries.clear()

    def first(self) -> tuple[Key, Item] | None:
        """The lowest key and its item, which stays."""
        while self._entries:
            key, number, item = self._entries[0]
            if self._current.get(item) == number:
                return key, item
            heappop(self._entries)
        return None
