"""`Roster`: who is in, who comes and who goes, by name and in order."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from itertools import count

from parrot_backend.endpoints.base import EndpointState
from parrot_backend.serving.dispatch.arrivals import Arrival, Arrivals
from parrot_backend.serving.dispatch.members import Member, Seat
from parrot_backend.serving.dispatch.names import Names, aliases_of_others, check_own_names
from parrot_backend.serving.dispatch.probe import tokenize_alike
from parrot_backend.wire.errors import ConflictError, NotFoundError, ParrotError, UnavailableError

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 60.0


class Roster:
    """Its members, each in a seat, in the operator's order; belongs to one event loop.

    Args:
        members: those that are ready as they are; others are started by `open` and `add`.
    """

    def __init__(self, *members: Member) -> None:
        self.names = Names()
        self._arrivals = Arrivals(self._check, self._sit)
        self._seats: dict[str, Seat] = {}
        self._order: list[str] = []
        self._configured: dict[str, object] = {}
        self._listeners: list[Callable[[Seat], None]] = []
        self._works: set[asyncio.Task[None]] = set()
        self._retiring: set[Seat] = set()
        self._successors = count(2)
        for member in members:
            self._order.append(member.name)
            seat = Seat(member)
            self._check_names(seat)
            self._sit(seat)

    @property
    def seats(self) -> list[Seat]:
        """Who is in, in order."""
        return [self._seats[name] for name in self._order if name in self._seats]

    @property
    def outside(self) -> list[Arrival]:
        """Who is not in: it starts, or could not be started, and nobody of its name is in."""
        return [each for each in self._arrivals.all if each.member.name not in self._seats]

    @property
    def members(self) -> list[Member]:
        """Who is in, in order."""
        return [seat.member for seat in self.seats]

    @property
    def states(self) -> dict[str, EndpointState]:
        """How each member stands, in order; one that could not be started has failed."""
        return {name: self._state_of(name) for name in self._order}

    @property
    def model(self) -> str | None:
        """What serves who names no model, where anything does."""
        return next((seat.model for seat in self.seats), None)

    def listen(self, changed: Callable[[Seat], None]) -> None:
        """Call `changed` with each seat: now, when it is new, of another state, or gone."""
        self._listeners.append(changed)
        for seat in self.seats:
            changed(seat)

    # Coming

    async def add(self, member: Member) -> None:
        """Start one more; it is in when this returns.

        Raises:
            ConflictError: its name or an alias is taken, or it tokenizes otherwise than its model's
                other engines.
            ParrotError: it can't be started, and why.
        """
        work = self._begin(member, told=False)
        await asyncio.wait((work,))
        if work.cancelled():
            raise UnavailableError(f"engine '{member.name}' was removed before it was ready")
        try:
            work.result()
        except ParrotError:
            await self._give_up(member.name)
            raise

    def _spawn(self, work: Coroutine[None, None, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work, name="reload")
        self._works.add(task)
        task.add_done_callback(self._worked)
        return task

    def _worked(self, task: "asyncio.Task[None]") -> None:
        self._works.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a change of the engines failed", exc_info=error)

    def _begin(self, member: Member, *, told: bool) -> "asyncio.Task[None]":
        if member.name in self._seats or self._arrivals.starting(member.name) is not None:
            raise taken(member.name)
        if member.name not in self._order:
            self._order.append(member.name)
        return self._arrivals.begin(member, told=told)

    async def _check(self, new: Seat) -> None:
        """Whether it can come in, at the end of this.

        Raises:
            ConflictError: it can't.
        """
        self._check_names(new)
        others = (s for s in self.seats if s.model == new.model and s.state == "ready")
        others = (seat for seat in others if seat.name != new.name and not seat.going)
        other = next(others, None)
        if other is not None and not await tokenize_alike(new.endpoint, other.endpoint):
            raise ConflictError(
                f"engine '{new.name}' makes other tokens of a text than engine '{other.name}', and "
                f"both serve '{new.model}': serve it under another model's name",
                param="model",
                code="other_tokenizer",
            )
        self._check_names(new)  # others may have come in meanwhile

    def _check_names(self, new: Seat) -> None:
        """Of those in the operator's file each comes in: see `_rename`.

        Raises:
            ConflictError: it can't be called as it is said.
        """
        check_own_names(new)
        if new.name not in self._configured:
            self.names.check(new)

    # Going

    async def drain(self, name: str) -> None:
        """It takes no more calls; those that run go on.

        Raises:
            NotFoundError: there is none of that name, or it is not in.
        """
        if (seat := self._seats.get(name)) is None:
            raise _unknown(name)
        self._drain(seat)

    async def remove(self, name: str, within: float = DRAIN_SECONDS) -> None:
        """Drain it, wait at most so long for what it runs, and close it; the rest runs elsewhere.

        Raises:
            NotFoundError: there is none of that name.
        """
        seat, starts = self._seats.get(name), name in self._arrivals
        if starts:
            await self._give_up(name)
        if seat is not None:
            await self._retire(seat, within)
        elif not starts:
            raise _unknown(name)

    async def aclose(self) -> None:
        """Close all; what is starting is given up."""
        works = [*self._works]
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)
        await self._arrivals.aclose()
        seats = {*self.seats, *self._retiring}
        await asyncio.gather(*(seat.endpoint.aclose() for seat in seats))

    def _drain(self, seat: Seat) -> None:
        if not seat.leaving:
            seat.leaving = True
            seat.endpoint.drain()
            self._tell(seat)

    async def _retire(self, seat: Seat, within: float = DRAIN_SECONDS) -> None:
        """Give one that takes no more time for what it runs, and close it."""
        seat.going = True
        self._retiring.add(seat)
        self._rename()
        self._drain(seat)
        await seat.emptied(within)
        self._leave(seat)
        await seat.endpoint.aclose()
        self._retiring.discard(seat)

    def _leave(self, seat: Seat) -> None:
        if not seat.gone:
            seat.gone = True
            if self._seats.get(seat.name) is seat:
                del self._seats[seat.name]
                if seat.name not in self._arrivals:
                    self._order.remove(seat.name)
            self._rename()
            self._tell(seat)
            logger.info("engine '%s' was removed", seat.name)

    async def _give_up(self, name: str) -> None:
        await self._arrivals.give_up(name)
        if name in self._order and name not in self._seats:
            self._order.remove(name)

    # The books

    def _sit(self, seat: Seat) -> None:
        if (old := self._seats.get(seat.name)) is not None:
            seat.key = f"{seat.name}#{next(self._successors)}"
            old.replaced = False
        self._seats[seat.name] = seat
        self._rename()
        seat.endpoint.watch(lambda: None if seat.gone else self._tell(seat))
        self._tell(seat)
        if old is not None:
            self._spawn(self._retire(old))

    def _rename(self) -> None:
        """An alias that a file gives to two models is the first's, whichever answers first."""
        for seat, alias, why in aliases_of_others(self.seats):
            logger.warning("%s", why)
            others = tuple(other for other in seat.member.aliases if other != alias)
            seat.update(replace(seat.member, aliases=others))
        self.names = Names(self.seats)

    def _tell(self, seat: Seat) -> None:
        seat.refresh()
        for changed in self._listeners:
            changed(seat)

    def _state_of(self, name: str) -> EndpointState:
        if (seat := self._seats.get(name)) is not None:
            return seat.state
        return "failed" if self._arrivals.starting(name) is None else "starting"


def taken(name: str) -> ConflictError:
    """There is one of that name."""
    return ConflictError(
        f"there is an engine '{name}' already: give this one another name, or remove that one first",
        param="name",
        code="engine_exists",
    )


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(
        f"there is no engine '{name}': GET /v1/engines lists those that there are",
        param="name",
        code="engine_not_found",
    )
