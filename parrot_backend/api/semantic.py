"""The native routes: sessions, programs, calls and Semantic Variables."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from parrot_backend.api.answer import answer, until_disconnect
from parrot_backend.api.choices import start
from parrot_backend.api.scope import InScope
from parrot_backend.api.state import tenancy_of
from parrot_backend.wire.messages import Name
from parrot_backend.wire.protocol import ChatRequest, Program, SessionRequest
from parrot_backend.wire.views import (
    EventList,
    GraphView,
    SessionList,
    SessionView,
    VariableValue,
    VariableView,
)

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])

Timeout = Annotated[float, Query(ge=0, le=3600, description="seconds")]
After = Annotated[int, Query(ge=0, description="only events with a higher number")]


@router.post("")
async def open_session(http: Request, body: SessionRequest | None = None) -> SessionView:
    """Open a session, with a program if there is one already."""
    tenancy = tenancy_of(http)
    session = tenancy.open(opening=body)
    if body is not None and body.program is not None:
        try:
            await session.submit(body.program)
        except Exception:
            tenancy.close(session.id)
            raise
    return session.view()


@router.get("")
async def list_sessions(http: Request, thread: Name | None = None) -> SessionList:
    """Open sessions and the last closed ones, the newest first; `thread` names those of one."""
    return SessionList(data=[session.view() for session in tenancy_of(http).sessions(thread)])


@router.get("/{session_id}")
async def inspect_session(session_id: str, http: Request) -> SessionView:
    """Counts of a session, also of one that was closed a while ago."""
    return tenancy_of(http).inspect(session_id).view()


@router.delete("/{session_id}")
async def close_session(session_id: str, http: Request) -> SessionView:
    """Close a session: what has not ended is cancelled, and counted in the answer."""
    session = tenancy_of(http).close(session_id)
    await session.settled()
    return session.view()


@router.post("/{session_id}/program")
async def submit_program(session_id: str, body: Program, http: Request) -> SessionView:
    """Submit calls at once, or extend what was submitted before."""
    session = tenancy_of(http).get(session_id)
    await session.submit(body)
    return session.view()


@router.post("/{session_id}/calls", response_model=None)
async def run_or_claim(
    session_id: str, body: ChatRequest, http: Request, scope: InScope
) -> Response:
    """Run one call, or claim the planned call that is equal to it."""
    calls = start(body, tenancy_of(http).get(session_id).take, scope)
    return await answer(http, calls, body)


@router.get("/{session_id}/variables/{name}")
async def read_variable(
    session_id: str, name: str, http: Request, timeout: Timeout = 600.0
) -> VariableView:
    """Wait for a variable's value, at most `timeout` seconds."""
    session = tenancy_of(http).get(session_id)
    value = await until_disconnect(http, session.read_variable(name, timeout))
    return VariableView(name=name, state="ready", value=value)


@router.put("/{session_id}/variables/{name}")
async def set_variable(
    session_id: str, name: str, body: VariableValue, http: Request
) -> VariableView:
    """Give an input variable its value."""
    tenancy_of(http).get(session_id).set_variable(name, body.value)
    return VariableView(name=name, state="ready", value=body.value)


@router.get("/{session_id}/graph")
async def graph(session_id: str, http: Request) -> GraphView:
    """The program and how far it is."""
    return tenancy_of(http).inspect(session_id).graph()


@router.get("/{session_id}/events")
async def events(session_id: str, http: Request, after: After = 0) -> EventList:
    """What happened in a session, in order."""
    return EventList(data=tenancy_of(http).inspect(session_id).events(after))
