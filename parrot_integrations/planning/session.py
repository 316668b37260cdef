"""Plan, run, claim: the session in which a run finds its calls already on their way."""

import asyncio
import logging
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from parrot_backend.wire.protocol import Objective, Program
from parrot_backend.wire.views import GraphView, SessionEvent, SessionView
from parrot_integrations.client import ParrotClient, active_sessions
from parrot_integrations.client.background import PendingSession
from parrot_integrations.client.errors import NotFoundError, ParrotError
from parrot_integrations.client.scope import active_scope
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.values import Unknown, is_big

logger = logging.getLogger(__name__)


class PlannedSession:
    """One run's session at the backend, to look into while it runs and for a while after.

    It opens while the run goes on: what asks something of it waits until it has, at most some seconds.
    """

    def __init__(self, client: ParrotClient, plan: Plan, pending: PendingSession) -> None:
        self.client = client
        self.plan = plan
        self._pending = pending

    @property
    def opened(self) -> bool:
        """Whether the backend took the plan."""
        return self._pending.submitted.result() is not None

    @property
    def id(self) -> str:
        """Its name at the backend.

        Raises:
            ParrotError: the plan was not submitted, or the backend did not take it.
        """
        if (session_id := self._pending.submitted.result()) is None:
            why = self._pending.error or "the run was over before"
            raise ParrotError(f"the plan was not submitted: {why}")
        return session_id

    @property
    def final(self) -> SessionView | None:
        """The final counts, when the run is over; the backend keeps those of the last sessions."""
        if (closed := self._pending.closed) is None:
            return None
        if (counts := closed.result()) is not None or not self.opened:
            return counts
        try:
            return self.client.session(self.id)
        except NotFoundError:
            return None

    def view(self) -> SessionView:
        """Counts as they stand; the final ones when the run is over."""
        return self.final or self.client.session(self.id)

    def events(self, after: int = 0) -> list[SessionEvent]:
        """What happened after event number `after`; all of it, when the run is over."""
        return self.client.events(self._settled_id(), after)

    def graph(self) -> GraphView:
        """The program and how far it is; as it ended, when the run is over."""
        return self.client.graph(self._settled_id())

    def _settled_id(self) -> str:
        """Its name, when a close that is on its way has come to its end."""
        if self._pending.closed is not None:
            self._pending.closed.result()
        return self.id


OnSession = Callable[[PlannedSession], None]
ResolvedValues = Iterable[tuple[Unknown, Any]]


def run_objective(objective: Objective | None) -> Objective:
    """The objective of a run: its own, that of the `parrot_session` around it, or latency."""
    return objective or active_scope.get().objective or "latency"


class PlannedRun:
    """Submits a plan, and again what it grows by while the run goes on.

    Requests that are sent while it is `active` join the session. Leaving it closes the session: what
    was not claimed is cancelled. A plan is only a hint, and the run waits for none of this: what can't
    be planned or submitted is left out, whatever the reason.
    """

    def __init__(
        self,
        plan: Plan,
        objective: Objective | None = None,
        on_session: OnSession | None = None,
    ) -> None:
        self._plan = plan
        self._objective = run_objective(objective)
        self._on_session = on_session
        self._session: PendingSession | None = None
        self._over = False
        self._planning = threading.Lock()
        # One mapping for all copies of the context: the session may open when they are made already.
        self._active: dict[Hashable, PendingSession] = {**active_sessions.get()}

    def __enter__(self) -> Self:
        self.settle(())
        return self

    def __exit__(self, *_: object) -> None:
        """Waits for nothing and takes no lock: for a stream that was dropped, the garbage collector
        comes here, from whatever holds one."""
        self._over = True
        if self._session is not None:
            self._close(self._session)

    @property
    def began(self) -> bool:
        """Whether anything was submitted."""
        return self._session is not None

    @contextmanager
    def active(self) -> Iterator[None]:
        """Requests that are sent inside claim what was planned for them."""
        token = active_sessions.set(self._active)
        try:
            yield
        finally:
            active_sessions.reset(token)

    def settle(self, settled: ResolvedValues) -> None:
        """Plan what these values make known, and hand it over before the run goes on."""
        try:
            with self._planning:
                opened = self._extend(settled)
        except Exception:
            # Whatever went wrong, the run must not notice: it never needs the plan.
            logger.exception("planning failed, running on without it")
            return
        if opened is not None:
            self._tell(opened)

    async def asettle(self, settled: ResolvedValues) -> None:
        """As `settle`; planning that takes long leaves the event loop."""
        settled = list(settled)
        if self._planning.locked() or is_big([value for _, value in settled]):
            await asyncio.to_thread(self.settle, settled)
        else:
            self.settle(settled)

    def _extend(self, settled: ResolvedValues) -> PlannedSession | None:
        """The session, where it is opened by this."""
        if self._over:
            return None
        try:
            for unknown, value in settled:
                unknown.settle(value)
            program = self._plan.take(self._objective) if self._plan.client else None
            if program is None or self._over:
                return None
            return self._submit(program)
        except Exception:
            self._over = True
            raise

    def _submit(self, program: Program) -> PlannedSession | None:
        begun = self._session is None
        session = self._session = self._session or self._client.pending_session()
        session.submit(program)
        self._active[self._client.key] = session
        if self._over:  # since just now: whoever ended it may not have seen the session
            self._close(session)
            return None
        return PlannedSession(self._client, self._plan, session) if begun else None

    def _close(self, session: PendingSession) -> None:
        self._active.pop(self._client.key, None)
        try:
            session.close()
        except Exception as error:
            logger.info("the session was not closed, it will expire: %s", error)

    def _tell(self, opened: PlannedSession) -> None:
        if self._on_session is None:
            return
        try:
            self._on_session(opened)
        except Exception:
            logger.exception("on_session failed")

    @property
    def _client(self) -> ParrotClient:
        if self._plan.client is None:
            raise ValueError("a plan without calls has no backend")
        return self._plan.client
