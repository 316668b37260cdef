"""What the end of a session waited for, and how much of it planning took away.

Without a plan a call starts when its client asks for it. So of a call that was dispatched earlier, the
client was spared the time from its dispatch until it was asked for, or until its end, if it had ended
by then: what it still had to wait, it would have waited too. Only calls on the critical path count, for
what is saved beside it changes nothing for who waits, and where several of them ran at the same time
it counts once: whether the client would have asked for them side by side, nobody can tell.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence

from parrot_backend.program.graph import Graph
from parrot_backend.wire.protocol import SemanticCall
from parrot_backend.wire.views import CallView

AHEAD_SECONDS = 0.010
"""Seconds that a call runs before its client asks for it, from which on it counts as run ahead."""


_MOST_STEPS = 200_000

Reads = Callable[[str], Sequence[str]]
"""By a call's id, the ids of the calls whose answers it reads."""


def calls_read(graph: Graph) -> Reads:
    """The calls that each call reads, also through transforms; of a vast graph, those asked first."""
    steps = 0

    def reads(call_id: str) -> list[str]:
        nonlocal steps
        call = graph.calls.get(call_id)
        stack = [] if call is None else [*graph.inputs[call.output]]
        seen, found = set(stack), []
        while stack and steps < _MOST_STEPS:
            steps += 1
            producer = graph.producers[stack.pop()]
            if isinstance(producer, SemanticCall):
                found.append(producer.id)
            elif producer is not None:
                stack += [name for name in graph.inputs[producer.output] if name not in seen]
                seen.update(graph.inputs[producer.output])
        return found

    return reads


def critical_path(views: Iterable[CallView], reads: Reads) -> list[CallView]:
    """The calls that the end was waiting for, in order.

    Before a planned call it was the one of those that it reads from which ended last; before any
    other, and behind a graph break, the last that the client had received when it asked for it.
    """
    ended = {view.id: view for view in views if view.finished and view.state == "done"}
    wanted = [view for view in ended.values() if asked(view) is not None]
    received = sorted(wanted, key=_received)
    times = [_received(view) for view in received]
    path: dict[str, CallView] = {}
    place = len(received)
    current = max(wanted or ended.values(), key=_received, default=None)
    while current is not None:
        path[current.id] = current
        before = [ended[name] for name in reads(current.id) if name in ended]
        if not before:
            place = min(place, bisect_right(times, asked(current) or current.queued or 0.0))
            while place and received[place - 1].id in path:
                place -= 1
            before = received[max(0, place - 1) : place]
        current = max((v for v in before if v.id not in path), key=_received, default=None)
    return [*path.values()][::-1]


def asked(view: CallView) -> float | None:
    """When a client asked for it; None where none did."""
    return view.claimed_at if view.planned else view.queued


def waited(path: Sequence[CallView]) -> float:
    """Seconds from the first dispatch on a path to what the client received last."""
    return _received(path[-1]) - (path[0].queued or 0.0) if path else 0.0


def saved_on(path: Iterable[CallView]) -> float:
    """Seconds that planning took away on a path."""
    spared = sorted((v.dispatched or 0.0, (v.dispatched or 0.0) + saved(v)) for v in path)
    total, until = 0.0, 0.0
    for start, end in spared:
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def saved(view: CallView) -> float:
    """Seconds of its run that had passed when it was asked for; all of it, if it had ended by then."""
    if view.claimed_at is None or view.dispatched is None or view.finished is None:
        return 0.0
    return max(0.0, min(view.claimed_at, view.finished) - view.dispatched)


def is_ahead(view: CallView) -> bool:
    """Whether the engine had it for a while when it was asked for; no dependent call is."""
    if view.dependent or view.claimed_at is None or view.dispatched is None:
        return False
    return view.claimed_at - view.dispatched > AHEAD_SECONDS


def _received(view: CallView) -> float:
    return max(view.finished or 0.0, asked(view) or 0.0)
