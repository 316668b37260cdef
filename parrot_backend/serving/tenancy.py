"""`Tenancy`: what one tenant has at the server. Another's is not found, for it is not here."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Iterable

from parrot_backend.endpoints.lengths import check_length
from parrot_backend.serving.call import Call
from parrot_backend.serving.dispatch.dispatcher import Dispatcher
from parrot_backend.serving.limits import Limits
from parrot_backend.serving.sessions.ranking import Ranking
from parrot_backend.serving.sessions.session import Session
from parrot_backend.serving.tenants import Tenant
from parrot_backend.serving.texts import SessionTexts
from parrot_backend.wire.errors import (
    CancelledCallError,
    ConflictError,
    NotFoundError,
    QuotaError,
)
from parrot_backend.wire.protocol import CallScope, SessionRequest
from parrot_backend.wire.text_protocol import LLMRequest, PromptRequest
from parrot_backend.wire.views import CallState


class Tenancy:
    """The sessions, threads and groups of one tenant, and its calls that belong to no session."""

    def __init__(
        self, tenant: Tenant, dispatcher: Dispatcher, limits: Limits, texts: SessionTexts
    ) -> None:
        self.tenant = tenant
        self._texts = texts
        self.limits = limits
        self._dispatcher = dispatcher
        self._sessions: dict[str, Session] = {}
        self._closed: OrderedDict[str, tuple[Session, int]] = OrderedDict()
        self._closed_bytes = 0
        self._threads: dict[str, Session] = {}
        self._groups: OrderedDict[str, Ranking] = OrderedDict()

    def open(self, opening: SessionRequest | None = None) -> Session:
        """A new session, its program not yet submitted; those that the opening names are closed.

        Raises:
            QuotaError: too many are open.
            ConflictError: the opening names one that there is.
        """
        opening = opening or SessionRequest()
        for name in opening.closes:
            if name in self._sessions:
                self.close(name)
        if len(self._sessions) >= self._most_sessions and not self._close_a_thread():
            raise QuotaError(
                f"{len(self._sessions)} sessions are open, the most that you may have: close some "
                "(DELETE /v1/sessions/{id}) or try again later"
            )
        if opening.id in self._sessions or opening.id in self._closed:
            raise ConflictError(
                f"there is a session '{opening.id}' already", param="id", code="session_exists"
            )
        session = Session(
            opening.id or f"s-{secrets.token_hex(12)}",
            self._dispatcher,
            self.limits,
            self._texts,
            self.tenant,
            opening,
        )
        self._sessions[session.id] = session
        return session

    def sessions(self, thread: str | None = None) -> list[Session]:
        """The open sessions and the last closed ones, the newest first; of one thread, if named."""
        found = [*(session for session, _ in self._closed.values()), *self._sessions.values()]
        chosen = (s for s in found if thread is None or s.opening.thread == thread)
        return sorted(chosen, key=lambda session: session.created, reverse=True)

    def get(self, session_id: str) -> Session:
        """An open session; asking for it is a use.

        Raises:
            NotFoundError: there is none of that name; it may have been closed.
        """
        if (session := self._sessions.get(session_id)) is None:
            raise _unknown(session_id)
        session.touch()
        return session

    def inspect(self, session_id: str) -> Session:
        """A session to look into: open, or among the last closed ones."""
        session = self._sessions.get(session_id)
        if session is None and session_id in self._closed:
            session, _ = self._closed[session_id]
        if session is None:
            raise _unknown(session_id)
        session.touch()
        return session

    def alive(self, names: Iterable[str]) -> list[str]:
        """Their client is alive; those of the sessions that are open."""
        known = [name for name in names if name in self._sessions]
        for name in known:
            self._sessions[name].touch()
        return known

    def close(self, session_id: str) -> Session:
        """Close a session; it can be inspected for a while."""
        session = self.get(session_id)
        del self._sessions[session_id]
        session.close()
        thread = session.opening.thread or ""
        if self._threads.get(thread) is session:
            del self._threads[thread]
        self._closed[session_id] = session, session.size
        self._closed_bytes += session.size
        self._forget_closed()
        return session

    def discard(self, session_id: str) -> None:
        """Close a session of which nothing is to be left: its name is free again."""
        self.close(session_id)
        _, size = self._closed.pop(session_id, (None, 0))
        self._closed_bytes -= size

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
        model = self._dispatcher.served(request.model, self.tenant)
        request.model = model.name
        check_length(request, model)
        self._dispatcher.admit(self.tenant, 1)
        kind = "cmpl" if isinstance(request, PromptRequest) else "chat"
        call = Call(f"{kind}-{secrets.token_hex(12)}", self, request, tenant=self.tenant)
        self._ranking_of(scope.group).rank(call, scope)
        self._dispatcher.track(call)
        self._dispatcher.enter(call)
        return call

    def expire(self) -> None:
        """Stop plans whose clients give no sign of life, and close what nobody uses any more."""
        for session in list(self._sessions.values()):
            idle = session.idle_seconds
            if idle > self.limits.session_idle_seconds:
                self.close(session.id)
            elif idle > session.grace and not session.stopped:
                session.stop_plan()
        self._forget_closed()

    def close_all(self) -> None:
        """Close every session."""
        for session_id in list(self._sessions):
            self.close(session_id)

    def _of_thread(self, scope: CallScope) -> Session | None:
        """The session of a thread, a new one where it has none or that is full.

        A thread is a hint: without room for its session, its requests run outside of any.
        """
        if scope.thread is None:
            return None
        session = self._threads.get(scope.thread)
        if session is None or session.full:
            objective = scope.objective or "latency"
            opening = SessionRequest(thread=scope.thread, objective=objective, tags=scope.tags)
            try:
                session = self._threads[scope.thread] = self.open(opening)
            except QuotaError:
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
            return Ranking(self._dispatcher.applications, single=True)
        ranking = self._groups.pop(group, None) or Ranking(self._dispatcher.new_application())
        self._groups[group] = ranking
        while len(self._groups) > self.limits.sessions:
            self._groups.popitem(last=False)
        return ranking

    @property
    def _most_sessions(self) -> int:
        return min(self.limits.sessions, self.tenant.sessions or self.limits.sessions)

    def _forget_closed(self) -> None:
        """Closed sessions may be as old, and hold as much together, as the limits say."""
        oldest = time.monotonic() - self.limits.closed_session_seconds
        while self._closed:
            session, size = next(iter(self._closed.values()))
            fits = self._closed_bytes <= self.limits.closed_session_bytes
            if fits and (session.closed_at or 0.0) > oldest:
                return
            del self._closed[session.id]
            self._closed_bytes -= size

    # As the owner of calls outside of sessions

    def moved(self, call: Call, before: CallState) -> None:
        """Nobody keeps book of them; the end is told at once."""
        if call.ended:
            call.tell_end()

    def first_token(self, call: Call) -> None:
        """Nobody keeps book of it."""

    def left(self, call: Call) -> None:
        """Nobody else can want it."""
        call.end("cancelled", CancelledCallError("the reader left before the end"))


def _unknown(session_id: str) -> NotFoundError:
    return NotFoundError(
        f"there is no session '{session_id}': it was never opened, or it has been closed or has "
        "expired. Open one with POST /v1/sessions",
        param="session_id",
        code="session_not_found",
    )
