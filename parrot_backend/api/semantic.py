"""The native routes: sessions, programs, calls and Semantic Variables."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect

from parrot_backend.api.answers.answer import answer, until_disconnect
from parrot_backend.api.answers.choices import start
from parrot_backend.api.answers.listing import listing
from parrot_backend.api.documentation import RUNS_CALLS, errors
from parrot_backend.api.requests.bodies import BodyRoute
from parrot_backend.api.requests.idempotency import Answers, IdempotencyKey
from parrot_backend.api.scope import InScope
from parrot_backend.api.state import tenancy_of
from parrot_backend.wire.errors import ConflictError
from parrot_backend.wire.messages import Name
from parrot_backend.wire.protocol import ChatRequest, Program, SessionRequest, SessionsAlive
from parrot_backend.wire.views import (
    EventList,
    GraphView,
    SessionList,
    SessionView,
    VariableValue,
    VariableView,
)

router = APIRouter(prefix="/v1/sessions", tags=["sessions"], route_class=BodyRoute)

Timeout = Annotated[float, Query(ge=0, le=3600, description="seconds; 0 asks without waiting")]
After = Annotated[int, Query(ge=0, description="only events with a higher number")]


def answers_of(http: Request) -> Answers[SessionView]:
    """What was answered to openings and programs."""
    answers: Answers[SessionView] = http.app.state.answers
    return answers


@router.post("", responses=errors(404, 409, 429, body=True))
async def open_session(
    http: Request, body: SessionRequest | None = None, key: IdempotencyKey = None
) -> SessionView:
    """Open a session, with a program if there is one already.

    A repeated opening, known by its idempotency key or by its `id`, is done once.
    """

    async def opened() -> SessionView:
        tenancy = tenancy_of(http)
        session = tenancy.open(opening=body)
        if body is not None and body.program is not None:
            try:
                await session.submit(body.program)
            except BaseException:
                if not session.closed:  # by somebody else meanwhile
                    tenancy.discard(session.id)
                raise
        return session.view()

    if await http.is_disconnected():  # it may have closed by name what it could not wait for
        raise ClientDisconnect
    if key is None and body is not None and body.id is not None:
        return await _opened_by_name(http, body.id, opened)
    return await answers_of(http).once(http, key, opened)


async def _opened_by_name(
    http: Request, name: str, opened: Callable[[], Awaitable[SessionView]]
) -> SessionView:
    """An id is a key too; one that is taken by something else is told as such."""
    try:
        return await answers_of(http).once(http, _key_of(name), opened)
    except ConflictError as error:
        if error.code != "idempotency_mismatch":
            raise
        return await opened()


def _key_of(name: str) -> str:
    return f"id {name}"


@router.get("", response_model=SessionList, responses=errors(400))
async def list_sessions(http: Request, thread: Name | None = None) -> Response:
    """Open sessions and the last closed ones, the newest first; `thread` names those of one."""
    sessions = tenancy_of(http).sessions(thread)
    return listing({"data": (session.view() for session in sessions)})


@router.post("/alive", responses=errors(body=True))
async def tell_alive(body: SessionsAlive, http: Request) -> SessionsAlive:
    """Tell that the client of these sessions is alive; those that are open are answered."""
    return SessionsAlive(sessions=tenancy_of(http).alive(body.sessions))


@router.get("/{session_id}", responses=errors(404))
async def inspect_session(session_id: str, http: Request) -> SessionView:
    """Counts of a session, also of one that was closed a while ago."""
    return tenancy_of(http).inspect(session_id).view()


@router.delete("/{session_id}", responses=errors(404))
async def close_session(session_id: str, http: Request) -> SessionView:
    """Close a session: what is planned and nobody asked for is cancelled, and counted in the answer.

    It can be looked into for a while: its counts, graph and events are still answered. An opening
    of that `id` which is in work is waited for.
    """
    await answers_of(http).settled(http, _key_of(session_id))
    session = tenancy_of(http).close(session_id)
    await session.settled()
    return session.view()


@router.post("/{session_id}/program", responses=errors(404, 409, 429, body=True))
async def submit_program(
    session_id: str, body: Program, http: Request, key: IdempotencyKey = None
) -> SessionView:
    """Submit calls at once, or extend what was submitted before; once for an idempotency key."""

    async def submitted() -> SessionView:
        session = tenancy_of(http).get(session_id)
        await session.submit(body)
        return session.view()

    return await answers_of(http).once(http, key, submitted)


@router.post("/{session_id}/calls", response_model=None, responses=RUNS_CALLS)
async def run_or_claim(
    session_id: str, body: ChatRequest, http: Request, scope: InScope
) -> Response:
    """Run one call, or claim the planned call that is equal to it."""
    calls = await start(body, tenancy_of(http).get(session_id).take, scope)
    return await answer(http, calls, body)


@router.get("/{session_id}/variables/{name}", responses=errors(400, 404, 409, 413, 424, 504))
async def read_variable(
    session_id: str, name: str, http: Request, timeout: Timeout = 600.0
) -> VariableView:
    """Wait for a variable's value, at most `timeout` seconds."""
    session = tenancy_of(http).get(session_id)
    value = await until_disconnect(http, session.read_variable(name, timeout))
    return VariableView(name=name, state="ready", value=value)


@router.put("/{session_id}/variables/{name}", responses=errors(404, 409, body=True))
async def set_variable(
    session_id: str, name: str, body: VariableValue, http: Request
) -> VariableView:
    """Give an input variable its value."""
    tenancy_of(http).get(session_id).set_variable(name, body.value)
    return VariableView(name=name, state="ready", value=body.value)


@router.get("/{session_id}/graph", response_model=GraphView, responses=errors(404))
async def graph(session_id: str, http: Request) -> Response:
    """The program and how far it is, also of a session that was closed a while ago."""
    return listing(tenancy_of(http).inspect(session_id).graph_lists())


@router.get("/{session_id}/events", response_model=EventList, responses=errors(400, 404))
async def events(session_id: str, http: Request, after: After = 0) -> Response:
    """What happened in a session, in order, also in one that was closed a while ago."""
    return listing({"data": tenancy_of(http).inspect(session_id).events(after)})
