"""`Fleet`: the engines of one server. They come in, are drained and go while it serves."""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace

from parrot_backend.serving.dispatch.members import Member, Seat
from parrot_backend.serving.dispatch.names import check_own_names
from parrot_backend.serving.dispatch.roster import DRAIN_SECONDS, Roster, taken
from parrot_backend.wire.errors import ConflictError, NotFoundError

__all__ = ["Fleet", "Member"]

logger = logging.getLogger(__name__)


class Fleet(Roster):
    """A roster that is what its operator says, when it is opened and whenever that is read again.

    same endpoint      what else is said of it is taken over
    another endpoint   old one runs ... new one is ready -> old one drained, closed
      no room for two  old one drained, closed -> new one starts; its calls wait meanwhile
    """

    async def open(self, members: Sequence[Member]) -> None:
        """Start all at once, until the first is in; the others come in later.

        Who can't be is told in the log; the service runs on with those that can.

        Raises:
            ParrotError: nobody can be; it is the error of one of them.
        """
        works = self._enlist(members, told=len(members) > 1)
        pending = set(works)
        while pending and not self._seats:
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        if not self._seats:
            for work in works:
                work.result()

    async def reload(self, members: Sequence[Member]) -> None:
        """Have these instead of those that `open` and earlier reloads brought.

        What is new is added, and what is gone is removed when that is in. What runs on the same
        endpoint as before goes on, with what else is said of it now; where the endpoint is another, or
        has failed or been drained, a new one takes the place of the old one when it is ready. All that
        is begun when this returns, and goes on in the background. The log tells what is another, and
        later who can't be started.
        """
        wanted: dict[str, Member] = {}
        for member in members:
            if wanted.setdefault(member.name, member) is not member:
                logger.warning("%s", taken(member.name).message)
        before, self._configured = self._configured, {m.name: m.said for m in wanted.values()}
        gone = [name for name in self._order if name in before.keys() - wanted.keys()]
        self._order = [*wanted, *(name for name in self._order if name not in wanted)]
        first = [self._spawn(self._remove_unwanted(n)) for n in gone if self._is_exclusive(n)]
        updated = [m for m in wanted.values() if self._has(m)]
        works = [self._replace(m, first) for m in wanted.values() if m not in updated]
        for name in gone:
            if not self._is_exclusive(name):
                self._spawn(self._remove_unwanted(name, works))
        self._update(updated)
        anew = {member.name for member in wanted.values() if member not in updated}
        logger.info("the engines were read again: %s", _changes(before, self._configured, anew))

    async def settled(self) -> None:
        """Wait until all that reloads have begun has been done, or can't be."""
        while self._works:
            await asyncio.wait(self._works)

    def _has(self, member: Member) -> bool:
        """Whether what the member would be is here already, or on its way."""
        arrival = self._arrivals.starting(member.name)
        if arrival is not None and arrival.member.is_made_as(member):
            return True
        seat = self._seats.get(member.name)
        if seat is None or seat.leaving or seat.state == "failed":
            return False
        if not seat.member.is_made_as(member):
            return False
        self._arrivals.let_go(member.name)
        return True

    def _update(self, members: Sequence[Member]) -> None:
        """Take what else is said of members over; one that has a name twice has no alias."""
        seats = []
        for member in members:
            if (arrival := self._arrivals.starting(member.name)) is not None:
                arrival.member = replace(member, endpoint=arrival.member.endpoint)
            elif (seat := self._seats.get(member.name)) is not None:
                seat.update(member)
                seats.append(seat)
        for seat in seats:
            try:
                check_own_names(seat)
            except ConflictError as error:
                logger.warning("%s", error.message)
                seat.update(replace(seat.member, aliases=()))
        self._rename()
        for seat in seats:
            self._tell(seat)

    def _replace(
        self, member: Member, others: Sequence["asyncio.Task[None]"]
    ) -> "asyncio.Task[None]":
        """Start a member for the seat of its name, if there is one. Where both don't fit beside each
        other, or beside `others` that go, it waits until these have gone."""
        old = self._seats.get(member.name)

        async def before() -> None:
            if member.exclusive and others:
                await asyncio.wait(others)
            if old is not None and (member.exclusive or old.member.exclusive):
                self._drain(old)
                await old.emptied(DRAIN_SECONDS)
                await old.endpoint.aclose()

        if old is not None:
            old.replaced = True
        work = self._arrivals.begin(member, told=True, before=before)
        self._spawn(self._replaced(old, work))
        return work

    async def _replaced(self, old: Seat | None, work: "asyncio.Task[None]") -> None:
        """Where nobody came for one that has been closed already, it goes as well."""
        await asyncio.wait((work,))
        if old is None or self._seats.get(old.name) is not old:
            return
        if self._arrivals.starting(old.name) is None:
            old.replaced = False
            if old.state == "dead" and old.leaving:
                self._leave(old)
            else:
                self._tell(old)

    async def _remove_unwanted(self, name: str, after: Sequence["asyncio.Task[None]"] = ()) -> None:
        """Remove one that a reload has left out, unless a later one wants it again."""
        if after:
            await asyncio.wait(after)
        if name not in self._configured:
            with contextlib.suppress(NotFoundError):
                await self.remove(name)

    def _is_exclusive(self, name: str) -> bool:
        inside = [self._seats[name].member] if name in self._seats else []
        arrival = self._arrivals.of(name)
        return any(m.exclusive for m in [*inside, *([arrival.member] if arrival else [])])

    def _enlist(self, members: Iterable[Member], *, told: bool) -> list["asyncio.Task[None]"]:
        works = []
        for member in members:
            try:
                works.append(self._begin(member, told=told))
            except ConflictError as error:
                logger.warning("%s", error.message)
            self._configured.setdefault(member.name, member.said)
        return works


def _changes(before: Mapping[str, object], now: Mapping[str, object], anew: Set[str]) -> str:
    """What of the engines is another, in words; those that are `anew` are started."""
    same = {name for name in now if name in before and before[name] == now[name]}
    found = {
        "added": [name for name in now if name not in before],
        "changed": [name for name in now if name in before and name not in same],
        "started again": [name for name in now if name in same & anew],
        "removed": [name for name in before if name not in now],
    }
    told = "; ".join(f"{what}: {', '.join(names)}" for what, names in found.items() if names)
    order = "only their order has changed" if [*before] != [*now] else "nothing has changed"
    return told or order
