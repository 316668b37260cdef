"""`ServingCore`: the sessions of one server, and the calls that belong to none."""

import asyncio
import contextlib
import secrets
import time
from collections import OrderedDict

from parrot_backend.endpoints.base import Endpoint
from parrot_backend.serving.call import Call
from parrot_backend.serving.dispatcher import Dispatcher
from parrot_backend.serving.limits import Limits
from parrot_backend.serving.ranking import Ranking
from parrot_backend.serving.session import Session
from parrot_backend.wire.errors import (
    CancelledCallError,
    ConflictError,
    NotFoundError,
    OverloadedError,
)
from parrot_backend.wire.protocol import CallScope, SessionRequest
from parrot_backend.wire.text_protocol import LLMRequest, PromptRequest


class ServingCore:
    """Opens, finds, expires and closes sessions over one endpoint."""

    def __init__(self, endpoint: Endpoint, limits: Limits) -> None:
        self.endpoint = endpoint
        self.limits = limits
        self._dispatcher = Dispatcher(endpoint, limits.unfinished_calls)
        self._sessions: dict[str, Session] = {}
        self._closed: OrderedDict[str, Session] = OrderedDict()
        self._threads: dict[tuple[str, str], Session] = {}
        self._groups: OrderedDict[str, Ranking] = OrderedDict()

    def open(self, tenant: str = "", opening: SessionRequest | None = None) -> Session:
        """A new session, its program not yet submitted; those that the opening names are closed.

        Raises:
            OverloadedError: too many are open.
            ConflictError: the opening names one that there is.
        """
        for name in opening.closes if opening is not None else ():
            if (old := self._sessions.get(name)) is not None and old.tenant == tenant:
                self.close(name)
        if len(self._sessions) >= self.limits.sessions and not self._close_a_thread():
            raise OverloadedError(
                f"{len(self._sessions)} sessions are open, the most this server takes: close some "
                "(DELETE /v1/sessions/{id}) or try again later"
            )
        chosen = opening.id if opening is not None else None
        if chosen in self._sessions or chosen in self._closed:
            raise ConflictError(
                f"there is a session '{chosen}' already", param="id", code="session_exists"
            )
        session = Session(
            chosen or f"s-{secrets.token_hex(12)}",
            self._dispatcher,
            self.limits,
            tenant,
            opening or SessionRequest(),
        )
        self._sessions[session.id] = session
        return session

    def sessions(self, thread: str | None = None) -> list[Session]:
        """The open sessions and the last closed ones, the newest first; of one thread, if named."""
        found = [*self._closed.values(), *self._sessions.values()]
        chosen = (s for s in found if thread is None or s.opening.thread == thread)
        return sorted(chosen, key=lambda session: session.created, reverse=True)

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
        thread = (session.tenant, session.opening.thread or "")
        if self._threads.get(thread) is session:
            del self._threads[thread]
        self._closed[session_id] = session
        while len(self._closed) > self.limits.closed_sessions:
            self._closed.popitem(last=False)
        return session

    def run(self, request: LLMRequest, scope: CallScope | None = None) -> Call:
        """Run a request that names no session; it stops when its reader leaves.

        One that names a thread runs in the thread's session, where there is room for one.

        Raises:
            NotFoundError: the request names a model that is not served.
            OverloadedError: a limit is reached.
        """
        scope = scope or CallScope()
        if (session := self._of_thread(scope)) is not None:
            return session.take(request, scope)
        request.model = self._dispatcher.check_model(request.model)
        kind = "cmpl" if isinstance(request, PromptRequest) else "chat"
        call = Call(f"{kind}-{secrets.token_hex(12)}", request)
        self._ranking_of(scope.group).rank(call, scope)
        call.on_abandoned = self._abandon
        self._dispatcher.start(call)
        return call

    def check_model(self, model: str | None) -> str:
        """The name of the model that serves `model`; None means the server's own.

        Raises:
            NotFoundError: this server does not serve that model.
        """
        return self._dispatcher.check_model(model)

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
        await self._dispatcher.aclose()

    def _of_thread(self, scope: CallScope, tenant: str = "") -> Session | None:
        """The session of a thread, a new one where it has none or that is full.

        A thread is a hint: without room for its session, its requests run outside of any.
        """
        if scope.thread is None:
            return None
        session = self._threads.get((tenant, scope.thread))
        if session is None or session.full:
            objective = scope.objective or "latency"
            opening = SessionRequest(thread=scope.thread, objective=objective, tags=scope.tags)
            try:
                session = self._threads[tenant, scope.thread] = self.open(tenant, opening)
            except OverloadedError:
                return None
        return session

    def _close_a_thread(self) -> bool:
        """Make room: nobody has to close the sessions of threads, so the longest unused may go."""
        idle = [session for session in self._threads.values() if not session.in_use]
        if idle:
            self.close(min(idle, key=lambda session: session.last_used).id)
        return bool(idle)

    def _ranking_of(self, group: str | None) -> Ranking:
        """Outside of sessions a group is an application; single calls go in order of arrival.

        They are as old as the application that will begin next, all alike, for the engine lets a
        prompt wait for the prefix that another computes, but not for a less urgent one's.
        """
        if group is None:
            return Ranking(self._dispatcher.applications)
        ranking = self._groups.pop(group, None) or Ranking(self._dispatcher.new_application())
        self._groups[group] = ranking
        while len(self._groups) > self.limits.sessions:
            self._groups.popitem(last=False)
        return ranking

    def _abandon(self, call: Call) -> None:
        self._dispatcher.cancel(call)
        call.end("cancelled", CancelledCallError("the reader left before the end"))


def _unknown(session_id: str) -> NotFoundError:
    return NotFoundError(
        f"there is no session '{session_id}': it was never opened, or it has been closed or has "
        "expired. Open one with POST /v1/sessions",
        param="session_id",
        code="session_not_found",
    )
