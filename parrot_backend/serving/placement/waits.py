"""`Waits`: who waits behind whom, and who waits for a place on an engine.

    leader --first token or end--> followers          behind a call
    engine --an end there--------> who waits for it   for a place
    any    --any end-------------> who found none anywhere, and one that waits for a place elsewhere

Nobody waits for what does not come: each that is waited for runs, or waits itself to run, and when it
has left those behind it are free. Of many behind one only the first few are, and the rest waits behind
the first of these, so that a long line does not decide anew at each end.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import chain, count, islice
from math import inf

from parrot_backend.serving.placement.views import PlacedCall

FREED = 16
"""Of those that take turns so many may choose anew at once."""
_FEW = 64


@dataclass(slots=True, eq=False)
class _Line:
    """Who waits one behind the other, and for whom; None where it is for a place."""

    leader: PlacedCall | None = None
    calls: OrderedDict[PlacedCall, None] = field(default_factory=OrderedDict)


@dataclass(frozen=True, slots=True, eq=False)
class _Wait:
    engine: str | None
    line: _Line
    call: PlacedCall


class Waits:
    """See the module."""

    def __init__(self) -> None:
        self._waits: dict[PlacedCall, _Wait] = {}
        self._behind: dict[PlacedCall, list[_Line]] = {}
        self._places: dict[str | None, _Line] = {}
        self._counts: Counter[str | None] = Counter()
        self._dues: list[tuple[float, int, _Wait]] = []
        self._numbers = count()

    def __len__(self) -> int:
        places = len(self._places) + len(self._counts)
        return len(self._waits) + len(self._behind) + places + len(self._dues)

    def __contains__(self, call: PlacedCall) -> bool:
        return call in self._waits

    def at(self, engine: str) -> int:
        """How many wait for an engine, for a place or behind one that runs there."""
        return self._counts[engine]

    def behind(self, leader: PlacedCall) -> int:
        """How many wait for a call."""
        return sum(len(line.calls) for line in self._behind.get(leader, ()))

    def add(
        self,
        call: PlacedCall,
        engine: str | None,
        leader: PlacedCall | None = None,
        due: float = inf,
    ) -> None:
        """A call waits for an engine (None: for any), behind a leader or for a place, at most until it
        is `due`."""
        self.remove(call)
        if leader is None:
            line = self._places.setdefault(engine, _Line())
        else:
            lines = self._behind.setdefault(leader, [])
            if not lines:
                lines.append(_Line(leader))
            line = lines[-1]
        line.calls[call] = None
        wait = self._waits[call] = _Wait(engine, line, call)
        self._counts[engine] += 1
        if due < inf:
            heappush(self._dues, (due, next(self._numbers), wait))

    def remove(self, call: PlacedCall) -> None:
        """It doesn't wait any more, if it did; those behind it do."""
        if (wait := self._waits.pop(call, None)) is None:
            return
        del wait.line.calls[call]
        self._forget_dues()
        self._counts[wait.engine] -= 1
        if not self._counts[wait.engine]:
            del self._counts[wait.engine]
        if wait.line.calls:
            return
        if (leader := wait.line.leader) is None:
            del self._places[wait.engine]
            return
        lines = self._behind[leader]
        lines.remove(wait.line)
        if not lines:
            del self._behind[leader]

    def free_behind(self, leader: PlacedCall, most: int | None = None) -> list[PlacedCall]:
        """Those behind a call needn't wait for it any more; of many, the first `most`."""
        lines = [*self._behind.get(leader, ())]
        free = [*islice(chain.from_iterable(line.calls for line in lines), most)]
        for call in free:
            self.remove(call)
        if (rest := self._behind.pop(leader, [])) and free:
            for line in rest:
                line.leader = free[0]
            self._behind.setdefault(free[0], []).extend(rest)
        return free

    def free_at(self, engine: str | None) -> list[PlacedCall]:
        """Those that wait for a place there may choose anew."""
        free = [*self._places[engine].calls] if engine in self._places else []
        for call in free:
            self.remove(call)
        return free

    def free_one(self) -> list[PlacedCall]:
        """One of those that wait for a place at some engine may choose anew, each engine in turn."""
        engine = next((name for name in self._places if name is not None), None)
        if engine is None:
            return []
        line = self._places[engine] = self._places.pop(engine)
        call = next(iter(line.calls))
        self.remove(call)
        return [call]

    @property
    def next_due(self) -> float | None:
        """When the first is due that has waited since; it may have left."""
        return self._dues[0][0] if self._dues else None

    def overdue(self, now: float) -> list[PlacedCall]:
        """Those that are due may choose anew."""
        free = []
        while self._dues and self._dues[0][0] <= now:
            wait = heappop(self._dues)[2]
            if self._waits.get(wait.call) is wait:
                free.append(wait.call)
        for call in free:
            self.remove(call)
        return free

    def _forget_dues(self) -> None:
        """Those of waits that are over go when they come up; all of them where they are most."""
        if not self._waits:
            self._dues.clear()
        elif len(self._dues) > 2 * len(self._waits) + _FEW:
            self._dues = [due for due in self._dues if self._waits.get(due[2].call) is due[2]]
            heapify(self._dues)

    def free_all_at(self, engine: str) -> list[PlacedCall]:
        """All that wait for an engine in any way may: it is gone."""
        free = [call for call, wait in self._waits.items() if wait.engine == engine]
        for call in free:
            self.remove(call)
        return free
