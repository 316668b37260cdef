"""`ServingCore`: the sessions of one server, and the calls that belong to none."""

import asyncio
import contextlib
import secrets
import time
from collections import OrderedDict

from parrot_backend.engines.base import Engine
from parrot_backend.errors import CancelledCallError, NotFoundError, OverloadedError
from parrot_backend.protocol import ChatRequest
from parrot_backend.serving.call import Call
from parrot_backend.serving.limits import Limits
from parrot_backend.serving.scheduler import Scheduler
from parrot_backend.serving.session import Session


class ServingCore:
    """Opens, finds, expires and closes sessions over one engine."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self.engine = engine
        self.limits = limits
        self._scheduler = Scheduler(engine, limits.unfinished_calls)
        self._sessions: dict[str, Session] = {}
        self._closed: OrderedDict[str, Session] = OrderedDict()

    def open(self, tenant: str = "") -> Session:
        """A new session.

        Raises:
            OverloadedError: too many are open.
        """
        if len(self._sessions) >= self.limits.sessions:
            raise OverloadedError(
                f"{len(self._sessions)} sessions are open, the most this server takes: close some "
                "(DELETE /v1/sessions/{id}) or try again later"
            )
        session = Session(f"s-{secrets.token_hex(12)}", self._scheduler, self.limits, tenant)
        self._sessions[session.id] = session
        return session

    def get(self, session_id: str) -> Session:
        """An open session.

        Raises:
            NotFoundError: there is none of that name; it may have been closed.
        """
        if (session := self._sessions.get(session_id)) is None:
            raise _unknown(session_id)
        return session

    def inspect(self, session_id: str) -> Session:
        """A session to look into: open, or among the last closed ones."""
        session = self._sessions.get(session_id) or self._closed.get(session_id)
        if session is None:
            raise _unknown(session_id)
        return session

    def close(self, session_id: str) -> Session:
        """Close a session; it can be inspected for a while."""
        session = self.get(session_id)
        del self._sessions[session_id]
        session.close()
        self._closed[session_id] = session
        while len(self._closed) > self.limits.closed_sessions:
            self._closed.popitem(last=False)
        return session

    def run(self, request: ChatRequest) -> Call:
        """Run a request that belongs to no session; it stops when its reader leaves."""
        request.model = self._scheduler.check_model(request.model)
        call = Call(f"chat-{secrets.token_hex(12)}", request)
        call.on_abandoned = self._abandon
        self._scheduler.start(call)
        return call

    async def expire_idle(self) -> None:
        """Close sessions that nobody uses any more; runs until it is cancelled."""
        while True:
            await asyncio.sleep(min(self.limits.session_idle_seconds / 4, 60.0))
            deadline = time.monotonic() - self.limits.session_idle_seconds
            for session in list(self._sessions.values()):
                if session.last_used < deadline and not session.in_use:
                    with contextlib.suppress(NotFoundError):
                        self.close(session.id)

    async def aclose(self) -> None:
        """Close every session and end every call."""
        for session_id in list(self._sessions):
            self.close(session_id)
        await self._scheduler.aclose()

    def _abandon(self, call: Call) -> None:
        self._scheduler.cancel(call)
        call.end("cancelled", CancelledCallError("the reader left before the end"))


def _unknown(session_id: str) -> NotFoundError:
    return NotFoundError(
        f"there is no session '{session_id}': it was never opened, or it has been closed or has "
        "expired. Open one with POST /v1/sessions",
        param="session_id",
        code="session_not_found",
    )
