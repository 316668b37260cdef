"""What the end of a session waited for, and how much of it planning took away.

Without a plan a call starts when its client asks for it. So of a call that was dispatched earlier, the
client was spared the time from its dispatch until it was asked for, or until its end, if it had ended
by then: what it still had to wait, it would have waited too. Only calls on the critical path count, for
what is saved beside it changes nothing for who waits, and where several of them ran at the same time
it counts once: whether the client would have asked for them side by side, nobody can tell.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from parrot_backend.program.graph import Graph
from parrot_backend.wire.protocol import SemanticCall
from parrot_backend.wire.views import CallState

AHEAD_SECONDS = 0.010
"""Seconds that a call runs before its client asks for it, from which on it counts as run ahead."""


class Timed(Protocol):
    """A call and its times, in seconds since the epoch: the view of one, or the call itself."""

    id: str
    state: CallState
    dependent: bool
    queued: float | None
    dispatched: float | None
    claimed_at: float | None
    finished: float | None

    @property
    def planned(self) -> bool:
        """Whether it came with a program."""
        ...


AnyCall = TypeVar("AnyCall", bound=Timed)


def critical_path(calls: Iterable[AnyCall], graph: Graph) -> list[AnyCall]:
    """The calls that the end was waiting for, in order.

    Before a planned call it was the one of those that it reads from which ended last; before any
    other, and behind a graph break, the last that the client had received when it asked for it. Calls
    are sorted once, and each edge of the graph is gone once.
    """
    ended = {call.id: call for call in calls if call.finished and call.state == "done"}
    times = {call_id: _received(call) for call_id, call in ended.items()}
    wanted = [call_id for call_id, call in ended.items() if asked(call) is not None]
    received = sorted(wanted, key=times.__getitem__)
    received_times = [times[call_id] for call_id in received]
    behind = _last_read(graph, times)
    path: dict[str, AnyCall] = {}
    place = len(received)
    current = max(wanted or ended, key=times.__getitem__, default=None)
    while current is not None and current not in path:
        path[current] = call = ended[current]
        current = behind.get(current)
        if current is None:
            place = min(place, bisect_right(received_times, asked(call) or call.queued or 0.0))
            while place and received[place - 1] in path:
                place -= 1
            current = received[place - 1] if place else None
    return [*path.values()][::-1]


def _last_read(graph: Graph, times: Mapping[str, float]) -> dict[str, str]:
    """By call id, which of the calls that it reads, also through transforms, was received last."""
    found: dict[str, str] = {}
    written: dict[str, str] = {}  # by variable, the last received of the calls that it is made from
    for node in graph.nodes:
        last, latest = None, -1.0
        for name in graph.inputs[node.output]:
            call_id = written.get(name)
            if call_id is not None and times[call_id] >= latest:
                last, latest = call_id, times[call_id]
        if isinstance(node, SemanticCall):
            if last is not None:
                found[node.id] = last
            last = node.id if node.id in times else None
        if last is not None:
            written[node.output] = last
    return found


def asked(view: Timed) -> float | None:
    """When a client asked for it; None where none did."""
    return view.claimed_at if view.planned else view.queued


def waited(path: Sequence[Timed]) -> float:
    """Seconds from the first dispatch on a path to what the client received last."""
    return _received(path[-1]) - (path[0].queued or 0.0) if path else 0.0


def saved_on(path: Iterable[Timed]) -> float:
    """Seconds that planning took away on a path."""
    spared = sorted((v.dispatched or 0.0, (v.dispatched or 0.0) + saved(v)) for v in path)
    total, until = 0.0, 0.0
    for start, end in spared:
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def saved(view: Timed) -> float:
    """Seconds of its run that had passed when it was asked for; all of it, if it had ended by then."""
    if view.claimed_at is None or view.dispatched is None or view.finished is None:
        return 0.0
    return max(0.0, min(view.claimed_at, view.finished) - view.dispatched)


def is_ahead(view: Timed) -> bool:
    """Whether the engine had it for a while when it was asked for; no dependent call is."""
    if view.dependent or view.claimed_at is None or view.dispatched is None:
        return False
    return view.claimed_at - view.dispatched > AHEAD_SECONDS


def _received(view: Timed) -> float:
    return max(view.finished or 0.0, asked(view) or 0.0)
