"""Signs of life: for as long as it has sessions open, a client tells their backends that it lives.

The plan of a client that was killed has no reader, and is stopped when its grace is over; one that
waits in a tool, and so asks for nothing either, keeps its plan by these.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Hashable
from typing import NamedTuple
from weakref import WeakKeyDictionary

from parrot_integrations.client import operations
from parrot_integrations.client.transport.sending import Transport

logger = logging.getLogger(__name__)

GRACE_SECONDS = 15.0
"""How long a plan runs on without any sign.

Two in a row may be lost: the first comes up to two intervals after the opening, and so the third up to
four.
"""

_INTERVAL_SECONDS = 3.5
# Shorter than the interval, so that they can't pile up at a backend that stalls.
_PATIENCE_SECONDS = 3.0
_MOST_SESSIONS = 1000


class _Opened(NamedTuple):
    """A session: where it is, its name there, and since when by the event loop's clock."""

    transport: Transport
    id: str
    at: float


class Heartbeat:
    """Tells backends of their sessions, of each every 3.5 s; what is over sooner costs nothing.

    For use in one event loop. Sessions are referred to weakly: who drops one without closing it gives
    no more sign of it.
    """

    def __init__(self) -> None:
        self._opened: WeakKeyDictionary[object, _Opened] = WeakKeyDictionary()
        self._timer: asyncio.TimerHandle | None = None
        self._beats: set[asyncio.Task[None]] = set()

    def begin(self, session: object, transport: Transport, session_id: str) -> None:
        """From now on the session is open."""
        now = asyncio.get_running_loop().time()
        self._opened[session] = _Opened(transport, session_id, now)
        if self._timer is None:
            self._beat_at(now + _INTERVAL_SECONDS)

    def end(self, session: object) -> None:
        """The session is over, or about to be."""
        self._opened.pop(session, None)
        if not self._opened and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat_at(self, due: float) -> None:
        self._timer = asyncio.get_running_loop().call_at(due, self._beat, due)

    def _beat(self, due: float) -> None:
        self._timer = None
        opened = list(self._opened.values())
        if not opened:
            return
        by_backend: defaultdict[Hashable, list[_Opened]] = defaultdict(list)
        for each in opened:
            if each.at + _INTERVAL_SECONDS <= due:
                by_backend[each.transport.key].append(each)
        for old in by_backend.values():
            beat = asyncio.get_running_loop().create_task(_tell(old))
            self._beats.add(beat)
            beat.add_done_callback(self._beats.discard)
        oldest = min(each.at for each in opened)
        self._beat_at(max(due, oldest) + _INTERVAL_SECONDS)


async def _tell(opened: list[_Opened]) -> None:
    """Once, as the next one comes soon; sessions of one backend."""
    transport = opened[0].transport
    try:
        # Around a managed backend's start too, which takes its own time.
        async with asyncio.timeout(_PATIENCE_SECONDS):
            for first in range(0, len(opened), _MOST_SESSIONS):
                ids = [each.id for each in opened[first : first + _MOST_SESSIONS]]
                await transport.aonce(operations.sessions_alive(ids), _PATIENCE_SECONDS)
    except Exception as error:
        logger.debug("no sign of life to %s: %s", transport.base_url, error)
