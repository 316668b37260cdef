"""The engines of the server: operators see them, and add, drain and remove them while it serves."""

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request

from parrot_backend.api.documentation import errors
from parrot_backend.api.requests.bodies import BodyRoute
from parrot_backend.api.state import check_operator, core_of
from parrot_backend.serving.dispatch.arrivals import Arrival
from parrot_backend.serving.dispatch.fleet import Fleet, Member
from parrot_backend.serving.dispatch.members import Seat
from parrot_backend.wire.errors import ConflictError, NotFoundError, ParrotError
from parrot_backend.wire.views import EngineList, EngineView

router = APIRouter(prefix="/v1/engines", tags=["operations"], route_class=BodyRoute)

MakeMembers = Callable[[dict[str, Any]], Sequence[Member]]
"""Members of a body, not started; raises an `InvalidRequestError` that says what is wrong with it."""


@router.get("", responses=errors())
async def list_engines(http: Request) -> EngineList:
    """All engines, those that start and those that could not be started included."""
    check_operator(http)
    return EngineList(data=_views(core_of(http).fleet))


@router.post("", status_code=201, responses=errors(409, body=True))
async def add_engine(http: Request, body: dict[str, Any]) -> EngineList:
    """Add an engine; the answer comes when it is ready, or can't be. One that serves several models is
    told as one for each.

    Raises:
        ConflictError: its name is taken, or nobody can add any here.
    """
    check_operator(http)
    make: MakeMembers | None = http.app.state.make_member
    if make is None:
        raise ConflictError("no engine can be added to this server", code="engines_fixed")
    fleet, added = core_of(http).fleet, list[str]()
    try:
        for member in make(body):
            await fleet.add(member)
            added.append(member.name)
    except ParrotError:
        for name in added:
            await fleet.remove(name, 0.0)
        raise
    return EngineList(data=[view for view in _views(fleet) if view.name in added])


@router.post("/{name:path}/drain", responses=errors(404))
async def drain_engine(name: str, http: Request) -> EngineView:
    """Give an engine nothing more to run; what it runs goes on."""
    check_operator(http)
    fleet = core_of(http).fleet
    await fleet.drain(name)
    return _view_of(fleet, name)


@router.delete("/{name:path}", responses=errors(404))
async def remove_engine(name: str, http: Request) -> EngineView:
    """Drain an engine, and close it when what it runs has ended; what takes too long runs elsewhere."""
    check_operator(http)
    core = core_of(http)
    view = _view_of(core.fleet, name)
    await core.fleet.remove(name, core.limits.drain_seconds)
    return view.model_copy(update={"state": "dead", "running": 0})


def _views(fleet: Fleet) -> list[EngineView]:
    return [*map(_of_seat, fleet.seats), *map(_of_arrival, fleet.outside)]


def _view_of(fleet: Fleet, name: str) -> EngineView:
    for view in _views(fleet):
        if view.name == name:
            return view
    raise NotFoundError(
        f"there is no engine '{name}': GET /v1/engines lists those that there are",
        param="name",
        code="engine_not_found",
    )


def _of_seat(seat: Seat) -> EngineView:
    return _of_member(
        seat.member,
        state=seat.state,
        model=seat.model,
        engine=seat.endpoint.card.engine,
        slots=seat.slots,
        running=seat.total,
        reason=seat.why,
    )


def _of_arrival(arrival: Arrival) -> EngineView:
    state = "starting" if arrival.why is None else "failed"
    return _of_member(arrival.member, state=state, model=arrival.member.model, reason=arrival.why)


def _of_member(member: Member, **told: Any) -> EngineView:
    return EngineView(
        name=member.name,
        aliases=list(member.aliases),
        weight=member.weight,
        tenants=None if member.tenants is None else sorted(member.tenants),
        **told,
    )
