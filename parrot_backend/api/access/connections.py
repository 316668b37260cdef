"""Connections: how many there are, and how long each may say nothing.

uvicorn accepts what comes, until there are no descriptors left; then nobody is answered any more, and
asyncio tells the log of every try.
"""

import asyncio
import logging
import resource
import select
from collections import OrderedDict
from typing import Any

import h11
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from parrot_backend.api.errors import error_response
from parrot_backend.serving.limits import Limits
from parrot_backend.wire.errors import (
    InvalidRequestError,
    OverloadedError,
    ParrotError,
    UnavailableError,
)

logger = logging.getLogger(__name__)

ACCEPTED_AT_ONCE = 8
"""Connections that asyncio accepts in one turn of the loop; many more wait in the kernel."""

_LINGERING = 256
_LINGER_SECONDS = 0.2
# Turns from a connection's acceptance until it is counted, and from its closing until it is closed.
_TURNS = 8
# Descriptors for those, and for all that is no connection.
_RESERVE = ACCEPTED_AT_ONCE * _TURNS + 64
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
        free = max(_descriptors() - _RESERVE, 4)
        self.lingering = min(_LINGERING, free // 4)
        self.most = min(limits.connections, free - self.lingering)
        self.header_seconds = limits.header_seconds
        self.count = 0
        # Those that were told that there is no room; the first one first.
        self.refused: OrderedDict[_Connection, None] = OrderedDict()
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
        while self.idle:
            longest, _ = self.idle.popitem(last=False)
            if not longest.has_news():
                longest.timeout_keep_alive_handler()
                return True
        return False


def answer_unread(state: ServerState) -> None:
    """Answer the requests whose bodies are still to come, and that are not waited for any longer."""
    for connection in list(state.connections):
        if isinstance(connection, _Connection):
            connection.stop_reading()


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
    `api.requests.bodies`. What is left of a body that was answered
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

    def has_news(self) -> bool:
        """Whether something has come that was not read yet: closing over it takes the answer away."""
        news = select.poll()
        news.register(self.transport.get_extra_info("socket"), select.POLLIN)
        return bool(news.poll(0))

    def send_400_response(self, msg: str) -> None:
        """In the shape of all errors; uvicorn's is plain text."""
        self._end_with(InvalidRequestError(msg))

    def stop_reading(self) -> None:
        """Wait no longer for the rest of a request that nobody has begun to answer."""
        if self.conn.our_state is h11.SEND_RESPONSE and self.conn.their_state is h11.SEND_BODY:
            self._end_with(UnavailableError("the server is shutting down: try again later"))

    def _end_with(self, error: ParrotError) -> None:
        """Answer and close, whatever is still to come."""
        answer = error_response(error)
        headers = [*answer.raw_headers, (b"connection", b"close")]
        for event in (
            h11.Response(status_code=answer.status_code, headers=headers),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event))
        self.transport.close()

    def _refuse(self) -> None:
        """Say so, and read what the client sends: closing over it would take the answer from it.

        That is done for a while, and only for so many: the first ones have most likely read it.
        """
        self.transport.write(_FULL_ANSWER)
        self.transport.write_eof()
        self._all.refused[self] = None
        self._deadline = self.loop.call_later(_LINGER_SECONDS, self.transport.close)
        if len(self._all.refused) > self._all.lingering:
            first, _ = self._all.refused.popitem(last=False)
            first.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.idle.pop(self, None)
        self._all.refused.pop(self, None)
        self._stop_waiting()
        if self._counted:
            self._all.count -= 1
            self._counted = False
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._counted or self.transport.is_closing():
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
