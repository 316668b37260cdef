"""Plan, run, claim: the session in which a run finds its calls already on their way."""

import asyncio
import logging
import threading
from collections.abc import Callable, Hashable, Iterable
from contextvars import Context, copy_context
from typing import Any, Self

from parrot_backend.wire.protocol import Objective, Program
from parrot_backend.wire.views import GraphView, SessionEvent, SessionView
from parrot_integrations.client import ParrotClient, active_sessions
from parrot_integrations.client.errors import ParrotError
from parrot_integrations.client.scope import active_scope
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.values import Unknown

logger = logging.getLogger(__name__)


class PlannedSession:
    """One run's session at the backend, to look into while it runs and for a while after."""

    def __init__(self, client: ParrotClient, plan: Plan, opened: SessionView) -> None:
        self.client = client
        self.plan = plan
        self.id = opened.id
        self.final: SessionView | None = None

    def view(self) -> SessionView:
        """Counts as they stand; the final ones when the run is over."""
        return self.final or self.client.session(self.id)

    def events(self, after: int = 0) -> list[SessionEvent]:
        """What happened after event number `after`."""
        return self.client.events(self.id, after)

    def graph(self) -> GraphView:
        """The program and how far it is."""
        return self.client.graph(self.id)


OnSession = Callable[[PlannedSession], None]
ResolvedValues = Iterable[tuple[Unknown, Any]]


def run_objective(objective: Objective | None) -> Objective:
    """The objective of a run: its own, that of the `parrot_session` around it, or latency."""
    return objective or active_scope.get().objective or "latency"


class PlannedRun:
    """Submits a plan, and again what it grows by while the run goes on.

    What runs in `context` joins the session. Leaving it closes the session: what was not claimed is
    cancelled. A plan is only a hint: what can't be submitted is left out, and the run goes on.
    """

    def __init__(
        self, plan: Plan, objective: Objective | None, on_session: OnSession | None
    ) -> None:
        self.context: Context = copy_context()
        self._plan = plan
        self._objective = run_objective(objective)
        self._on_session = on_session
        self._session: PlannedSession | None = None
        self._given_up = False
        self._planning = threading.Lock()
        self._submitting = threading.Lock()
        self._asubmitting = asyncio.Lock()
        # One mapping for all copies of the context: the session may open when they are made already.
        self._active: dict[Hashable, str] = {**active_sessions.get()}
        self.context.run(active_sessions.set, self._active)

    def settle(self, settled: ResolvedValues) -> None:
        """Plan what these values make known, and submit it before the run goes on."""
        with self._submitting:
            if (program := self._extension(settled)) is None:
                return
            try:
                self._submitted(self._send(program))
            except ParrotError as error:
                self._give_up(error)

    async def asettle(self, settled: ResolvedValues) -> None:
        """As `settle`."""
        async with self._asubmitting:
            if (program := self._extension(settled)) is None:
                return
            try:
                self._submitted(await self._asend(program))
            except ParrotError as error:
                self._give_up(error)

    def __enter__(self) -> Self:
        self.settle(())
        return self

    def __exit__(self, *_: object) -> None:
        self._given_up = True
        with self._submitting:
            if (session := self._session) is None:
                return
            try:
                session.final = session.client.close_session(session.id)
            except ParrotError as error:
                logger.warning("session %s was not closed: %s", session.id, error)

    async def __aenter__(self) -> Self:
        await self.asettle(())
        return self

    async def __aexit__(self, *_: object) -> None:
        """The session is closed also when the run is cancelled."""
        self._given_up = True
        await asyncio.shield(self._aclose())

    async def _aclose(self) -> None:
        """Behind what is just being submitted: steps may go on that nobody waits for any more."""
        async with self._asubmitting:
            if (session := self._session) is None:
                return
            try:
                session.final = await session.client.aclose_session(session.id)
            except ParrotError as error:
                logger.warning("session %s was not closed: %s", session.id, error)

    def _extension(self, settled: ResolvedValues) -> Program | None:
        with self._planning:
            if self._given_up:
                return None
            try:
                for unknown, value in settled:
                    unknown.settle(value)
                return self._plan.take(self._objective) if self._plan.client else None
            except Exception:
                # Whatever went wrong, the run must not notice: it never needs the plan.
                logger.exception("planning failed, running on without it")
                self._given_up = True
                return None

    def _send(self, program: Program) -> SessionView:
        if self._session is None:
            return self._client.open_session(program)
        return self._client.submit(self._session.id, program)

    async def _asend(self, program: Program) -> SessionView:
        if self._session is None:
            return await self._client.aopen_session(program)
        return await self._client.asubmit(self._session.id, program)

    @property
    def _client(self) -> ParrotClient:
        if self._plan.client is None:
            raise ValueError("a plan without calls has no backend")
        return self._plan.client

    def _submitted(self, view: SessionView) -> None:
        if self._session is None:
            self._session = PlannedSession(self._client, self._plan, view)
            self._active[self._client.key] = view.id
            if self._on_session is not None:
                self._on_session(self._session)

    def _give_up(self, error: ParrotError) -> None:
        self._given_up = True
        logger.warning("the plan was not submitted, running without it: %s", error)
