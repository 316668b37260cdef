"""`Arrivals`: members on their way in, and why some did not get there.

begin -> before -> start -> check -> sit
            ^                 |
            '--- a while -----'  who could not be started and can be made once more
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from parrot_backend.endpoints.process.backoff import Backoff
from parrot_backend.serving.dispatch.members import Member, Seat
from parrot_backend.wire.errors import EngineError, ParrotError

logger = logging.getLogger(__name__)

Before = Callable[[], Awaitable[None]]

_FIRST_SECONDS, _MOST_SECONDS = 1.0, 60.0


@dataclass(slots=True, eq=False)
class Arrival:
    """A member that starts, or that could not be started: `why` says why, until it could be."""

    member: Member
    work: "asyncio.Task[None] | None" = None
    why: str | None = None
    again: "asyncio.Task[None] | None" = None

    @property
    def tasks(self) -> "list[asyncio.Task[None]]":
        """What is to be stopped where it is given up."""
        return [task for task in (self.work, self.again) if task is not None]


class Arrivals:
    """Starts members, each in a task of its own; belongs to one event loop.

    Args:
        check: raises a `ParrotError` where one that has started can't come in.
        sit: lets it in, at once after the check.
    """

    def __init__(
        self, check: Callable[[Seat], Awaitable[None]], sit: Callable[[Seat], None]
    ) -> None:
        self._check = check
        self._sit = sit
        self._arrivals: dict[str, Arrival] = {}
        self._given_up: set[asyncio.Task[None]] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._arrivals

    @property
    def all(self) -> list[Arrival]:
        """Those that start and those that could not."""
        return list(self._arrivals.values())

    def of(self, name: str) -> Arrival | None:
        """One of that name that starts, or could not."""
        return self._arrivals.get(name)

    def starting(self, name: str) -> Arrival | None:
        """One of that name that is on its way."""
        arrival = self._arrivals.get(name)
        return arrival if arrival is not None and arrival.why is None else None

    def begin(
        self, member: Member, *, told: bool, before: Before | None = None
    ) -> "asyncio.Task[None]":
        """Start a member, after what has to be `before`, instead of another of that name.

        Where it can't be started and that is to be `told`, the log has a line on it, and it is tried
        again, less and less often, if it can be made once more.
        """
        self.let_go(member.name)
        arrival = self._arrivals[member.name] = Arrival(member)

        async def come_in() -> None:
            if before is not None:
                await before()
            await self._come_in(arrival)

        def ended(work: "asyncio.Task[None]") -> None:
            if work.cancelled() or (error := work.exception()) is None:
                return
            self._tell(arrival, error, told=told)
            if told and member.make is not None and self._arrivals.get(member.name) is arrival:
                name = f"start engine {member.name} again"
                arrival.again = asyncio.create_task(self._try_again(arrival), name=name)

        arrival.work = asyncio.create_task(come_in(), name=f"start engine {member.name}")
        arrival.work.add_done_callback(ended)
        return arrival.work

    async def give_up(self, name: str) -> None:
        """Whether it starts or could not: it is forgotten."""
        if tasks := self.let_go(name):
            await asyncio.wait(tasks)

    async def aclose(self) -> None:
        """Give up all."""
        for name in list(self._arrivals):
            self.let_go(name)
        if self._given_up:
            await asyncio.wait(self._given_up)

    def let_go(self, name: str) -> "list[asyncio.Task[None]]":
        """Forget one at once; what is left of it ends in the background."""
        arrival = self._arrivals.pop(name, None)
        tasks = [] if arrival is None else [task for task in arrival.tasks if not task.done()]
        for task in tasks:
            task.cancel()
            self._given_up.add(task)
            task.add_done_callback(self._given_up.discard)
        return tasks

    async def _try_again(self, arrival: Arrival) -> None:
        backoff, make = Backoff(_FIRST_SECONDS, _MOST_SECONDS), arrival.member.make
        while make is not None:
            await asyncio.sleep(backoff.after(0.0))
            try:
                arrival.member = replace(arrival.member, endpoint=make())
                await self._come_in(arrival)
            except ParrotError as error:
                self._tell(arrival, error, told=error.message != arrival.why)
            else:
                return

    def _tell(self, arrival: Arrival, error: BaseException, *, told: bool) -> None:
        arrival.why = error.message if isinstance(error, ParrotError) else repr(error)
        if told:
            logger.warning("engine '%s' can't be used: %s", arrival.member.name, arrival.why)

    async def _come_in(self, arrival: Arrival) -> None:
        endpoint, name = arrival.member.endpoint, arrival.member.name
        try:
            await endpoint.start()
            seat = Seat(arrival.member)
            await self._check(seat)
        except BaseException as error:
            await endpoint.aclose()
            if isinstance(error, ParrotError) or not isinstance(error, Exception):
                raise
            logger.exception("engine '%s' can't be started", name)
            raise EngineError(f"engine '{name}' can't be started: {error!r}") from error
        if arrival.member is not seat.member:  # its operator said something else of it meanwhile
            seat.update(arrival.member)
        del self._arrivals[name]
        self._sit(seat)
        logger.info("engine '%s' (%s) serves '%s'", seat.name, endpoint.card.engine, seat.model)
