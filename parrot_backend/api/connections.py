"""Connections: how many there are, and how long each may say nothing.

uvicorn accepts what comes, until there are no descriptors left; then nobody is answered any more, and
asyncio tells the log of every try.
"""

import asyncio
import logging
import resource
from collections import OrderedDict
from typing import Any

import h11
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from parrot_backend.api.errors import error_response
from parrot_backend.serving.limits import Limits
from parrot_backend.wire.errors import InvalidRequestError, OverloadedError

logger = logging.getLogger(__name__)

BACKLOG = 64
"""Connections that asyncio accepts at once, before any of them is counted."""

_LINGERING = 32
_LINGER_SECONDS = 0.2
_RESERVE = BACKLOG + _LINGERING + 64  # descriptors for them, and for all that is no connection
_FULL = error_response(
    OverloadedError(
        "the server has as many connections as it may: try again", code="too_many_connections"
    )
).body
_FULL_ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(_FULL), bytes(_FULL))
)


class Connections:
    """The connections of one server, which makes a protocol for each; bounded by its descriptors."""

    def __init__(self, limits: Limits) -> None:
        self.most = min(limits.connections, max(_descriptors() - _RESERVE, 1))
        self.header_seconds = limits.header_seconds
        self.count = 0
        self.refused = 0
        # The longest idle first.
        self.idle: OrderedDict[_Connection, None] = OrderedDict()

    def __call__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> asyncio.Protocol:
        """A protocol for a connection that was accepted."""
        return _Connection(self, config, server_state, app_state, _loop)

    def make_room(self) -> bool:
        """Whether there is room for another, if need be in place of the longest idle one."""
        if self.count < self.most:
            return True
        if not self.idle:
            return False
        longest, _ = self.idle.popitem(last=False)
        longest.timeout_keep_alive_handler()
        return True


def _descriptors() -> int:
    """How many files this process may have open, after it has taken all that it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError) as error:  # macOS has a lower bound than it tells
            logger.info("can't have %d files open, but %d: %s", hard, soft, error)
    return soft if soft != resource.RLIM_INFINITY else 2**20


class _Connection(H11Protocol):
    """One connection: idle, with a head that is to come in time, or with a request.

    The first head has to come in time from the beginning on. A request's body has its deadline in
    `api.bodies`. What is left of a body that was answered
    without being read has to come in the time of a head.
    """

    def __init__(
        self,
        connections: Connections,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        self._all = connections
        self._counted = False
        self._refused = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if not self._all.make_room():
            self._refuse()
            return
        self._counted = True
        self._all.count += 1
        self._all.idle[self] = None
        self._expect_head()

    def send_400_response(self, msg: str) -> None:
        """In the shape of all errors; uvicorn's is plain text."""
        body = error_response(InvalidRequestError(msg)).body
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        for event in (
            h11.Response(status_code=400, headers=headers),
            h11.Data(data=bytes(body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event))
        self.transport.close()

    def _refuse(self) -> None:
        """Say so, and read what the client sends: closing over it would take the answer from it."""
        self._refused = True
        self._all.refused += 1
        self.transport.write(_FULL_ANSWER)
        self.transport.write_eof()
        seconds = _LINGER_SECONDS if self._all.refused <= _LINGERING else 0
        self._deadline = self.loop.call_later(seconds, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.idle.pop(self, None)
        self._stop_waiting()
        if self._counted:
            self._all.count -= 1
            self._counted = False
        if self._refused:
            self._all.refused -= 1
            self._refused = False
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused or self.transport.is_closing():
            return
        self._all.idle.pop(self, None)
        super().data_received(data)

    def handle_events(self) -> None:
        super().handle_events()
        self._settle()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._settle()

    def _settle(self) -> None:
        """Find out which of the three it is now."""
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self.conn.their_state is not h11.IDLE or self.conn.trailing_data[0]:
            if self._deadline is None:
                self._expect_head()
        elif self.cycle is not None:
            self._stop_waiting()
            self._all.idle[self] = None

    def _expect_head(self) -> None:
        self._deadline = self.loop.call_later(self._all.header_seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
