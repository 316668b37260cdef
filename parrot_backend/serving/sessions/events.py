"""A session's log: what happened, in order."""

import time
from collections import deque
from collections.abc import Iterator

from parrot_backend.wire.views import EventKind, SessionEvent


class EventLog:
    """The last `size` events of a session; `seq` goes on where older ones were dropped."""

    def __init__(self, size: int) -> None:
        self._events: deque[tuple[int, float, EventKind, str]] = deque(maxlen=size)
        self._count = 0

    def add(self, kind: EventKind, name: str) -> None:
        """Note that something happened to the call or variable `name`."""
        self._count += 1
        self._events.append((self._count, time.time(), kind, name))

    def after(self, seq: int) -> Iterator[SessionEvent]:
        """The events until now with a number above `seq`, told one by one: they may be many."""
        return (
            SessionEvent(seq=number, time=at, kind=kind, name=name)
            for number, at, kind, name in list(self._events)
            if number > seq
        )
