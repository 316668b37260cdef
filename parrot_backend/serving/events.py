"""A session's log: what happened, in order."""

import time
from collections import deque

from parrot_backend.wire.views import EventKind, SessionEvent


class EventLog:
    """The last `size` events of a session; `seq` goes on where older ones were dropped."""

    def __init__(self, size: int) -> None:
        self._events: deque[SessionEvent] = deque(maxlen=size)
        self._count = 0

    def add(self, kind: EventKind, name: str) -> None:
        """Note that something happened to the call or variable `name`."""
        self._count += 1
        self._events.append(SessionEvent(seq=self._count, time=time.time(), kind=kind, name=name))

    def after(self, seq: int) -> list[SessionEvent]:
        """The events with a number above `seq`."""
        return [event for event in self._events if event.seq > seq]
