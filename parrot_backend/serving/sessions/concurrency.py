"""Concurrency groups: how many of a session's planned calls run at once.

Calls that are in the same groups wait in one *lane*. A lane waits at one of its groups that has no
room, so that an end looks only at the lanes that it may help, whatever the number of calls:

    calls in {a}       -> lane a   -> waits at a
    calls in {a, b}    -> lane ab  -> waits at a, or else at b
"""

import itertools
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from heapq import heappop, heappush

from parrot_backend.serving.call import Call

# Lower goes first: unclaimed, not critical, minus the work up to the output, number of arrival.
_Rank = tuple[bool, bool, float, int]
_Entry = tuple[_Rank, int, "_Lane"]


class _Lane:
    """The calls of the same groups that wait. One that was claimed meanwhile is there twice."""

    def __init__(self, groups: tuple["_Group", ...], waiting: set[Call]) -> None:
        self.groups = groups
        self._waiting = waiting
        self.waits_at: _Group | None = None
        self.entry: _Entry | None = None
        self._calls: list[tuple[_Rank, Call]] = []

    def add(self, rank: _Rank, call: Call) -> None:
        heappush(self._calls, (rank, call))

    def first(self) -> tuple[_Rank, Call] | None:
        """Who goes first of those that still wait."""
        while self._calls and self._calls[0][1] not in self._waiting:
            heappop(self._calls)
        return self._calls[0] if self._calls else None

    def full_group(self) -> "_Group | None":
        return next((group for group in self.groups if not group.room), None)


class _Group:
    """At most `limit` calls run. Lanes wait by their first calls; a lane's last entry counts."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0
        self._waiting: list[_Entry] = []
        self._numbers = itertools.count()

    @property
    def room(self) -> bool:
        return self.running < self.limit

    def let_wait(self, lane: _Lane, rank: _Rank) -> None:
        lane.waits_at, lane.entry = self, (rank, next(self._numbers), lane)
        heappush(self._waiting, lane.entry)

    def next_lane(self) -> _Lane | None:
        """The lane that goes first; it waits no longer."""
        while self._waiting:
            entry = heappop(self._waiting)
            rank, _, lane = entry
            if lane.entry is not entry:
                continue
            lane.waits_at = lane.entry = None
            if (first := lane.first()) is None:
                continue
            if first[0] == rank:
                return lane
            self.let_wait(lane, first[0])  # who was first has ended in the meantime
        return None


class Concurrency:
    """The groups of one session. A call that somebody has claimed goes before those of its groups.

    Args:
        start: is given each call that has got its place.
    """

    def __init__(self, start: Callable[[Call], None]) -> None:
        self._start = start
        self._waiting: set[Call] = set()
        self._groups: dict[str, _Group] = {}
        self._lanes: dict[tuple[str, ...], _Lane] = {}
        self._numbers = itertools.count()
        self._to_fill: deque[_Group] = deque()
        self._filling = False

    def limit(self, limits: Mapping[str, int]) -> None:
        """Say how many calls of each group may run at once; what has room now starts."""
        for name, most in limits.items():
            group = self._groups.setdefault(name, _Group(most))
            group.limit = most
            self._to_fill.append(group)
        self._fill()

    def enter(self, call: Call) -> None:
        """Start a rendered call when each of its groups has room; it is `queued` till then."""
        if not call.concurrency:
            self._start(call)
            return
        call.queue()
        self._waiting.add(call)
        call.at_end(lambda: self._waiting.discard(call))
        self._wait(call)
        self._fill()

    def rerank(self, call: Call) -> None:
        """The call's rank is another, or somebody reads it: if it waits, its place is another too."""
        if call in self._waiting:
            self._wait(call)

    def _wait(self, call: Call) -> None:
        if (lane := self._lanes.get(call.concurrency)) is None:
            groups = tuple(self._groups[name] for name in call.concurrency)
            lane = self._lanes[call.concurrency] = _Lane(groups, self._waiting)
        work = call.rank.work or call.rank.path
        rank = (not call.claimed, not call.rank.critical, -work, next(self._numbers))
        lane.add(rank, call)
        if lane.entry is None or rank < lane.entry[0]:
            self._place(lane, lane.waits_at or lane.groups[0])

    def _place(self, lane: _Lane, group: _Group) -> None:
        """Let the lane wait at one of its groups, also one that has room and will be filled."""
        if (first := lane.first()) is not None:
            group.let_wait(lane, first[0])
            if group.room:
                self._to_fill.append(group)

    def _fill(self) -> None:
        """Start what has room. What ends by that, as it can't start, makes room in the same loop."""
        if self._filling:
            return
        self._filling = True
        try:
            while self._to_fill:
                group = self._to_fill.popleft()
                while group.room and (lane := group.next_lane()) is not None:
                    self._serve(lane, group)
        finally:
            self._filling = False

    def _serve(self, lane: _Lane, group: _Group) -> None:
        """Start the lane's first call if it has room; the rest waits where there is none."""
        if (full := lane.full_group()) is None and (first := lane.first()) is not None:
            self._run(lane, first[1])
        self._place(lane, full or group)

    def _run(self, lane: _Lane, call: Call) -> None:
        self._waiting.discard(call)
        for group in lane.groups:
            group.running += 1
        call.at_end(partial(self._leave, lane))
        self._start(call)

    def _leave(self, lane: _Lane) -> None:
        for group in lane.groups:
            group.running -= 1
            self._to_fill.append(group)
        self._fill()
