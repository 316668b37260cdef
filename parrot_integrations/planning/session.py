"""Plan, run, claim: the session in which a run finds its calls already on their way."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import Context, copy_context

from parrot_backend.protocol import GraphView, Objective, SessionEvent, SessionView
from parrot_integrations.client import ParrotClient, active_sessions
from parrot_integrations.errors import ParrotError
from parrot_integrations.planning.plan import Plan

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


@contextmanager
def planned(
    client: ParrotClient | None, plan: Plan, objective: Objective, on_session: OnSession | None
) -> Iterator[Context]:
    """Submit a plan, and give the context to run in; what was not claimed is cancelled at the end.

    A plan is only a hint: where it is empty or can't be submitted, the run goes on without it.
    """
    context = copy_context()
    session = None
    if client is not None and plan.calls:
        try:
            opened = client.open_session(plan.program(objective))
            session = _enter(context, client, plan, opened, on_session)
        except ParrotError as error:
            logger.warning("the plan was not submitted, running without it: %s", error)
    try:
        yield context
    finally:
        if session is not None:
            try:
                session.final = session.client.close_session(session.id)
            except ParrotError as error:
                logger.warning("session %s was not closed: %s", session.id, error)


@asynccontextmanager
async def aplanned(
    client: ParrotClient | None, plan: Plan, objective: Objective, on_session: OnSession | None
) -> AsyncIterator[Context]:
    """`planned` for an event loop; the session is closed also when the run is cancelled."""
    context = copy_context()
    session = None
    if client is not None and plan.calls:
        try:
            opened = await client.aopen_session(plan.program(objective))
            session = _enter(context, client, plan, opened, on_session)
        except ParrotError as error:
            logger.warning("the plan was not submitted, running without it: %s", error)
    try:
        yield context
    finally:
        if session is not None:
            await asyncio.shield(_aclose(session))


async def _aclose(session: PlannedSession) -> None:
    try:
        session.final = await session.client.aclose_session(session.id)
    except ParrotError as error:
        logger.warning("session %s was not closed: %s", session.id, error)


def _enter(
    context: Context,
    client: ParrotClient,
    plan: Plan,
    opened: SessionView,
    on_session: OnSession | None,
) -> PlannedSession:
    outer = context.get(active_sessions, {})
    context.run(active_sessions.set, {**outer, client.key: opened.id})
    session = PlannedSession(client, plan, opened)
    if on_session is not None:
        on_session(session)
    return session
