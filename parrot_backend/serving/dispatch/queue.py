"""`Queue`: the calls of one model that wait, and which of them goes to which member next.

The policy says whose turn it is, of those whose tenants may use what has room, and placement where.
Whom placement lets wait is parked there, until it says that this may have changed; who finds no room
but where it was lost before waits until there is. Both come back through the policy, for others may
have come meanwhile that go first.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

from parrot_backend.engines.base import Delta
from parrot_backend.program.analysis import Expected
from parrot_backend.serving.call import Call
from parrot_backend.serving.dispatch.attempts import Ticket, placed_call
from parrot_backend.serving.dispatch.lengths import estimated_prompt
from parrot_backend.serving.dispatch.members import Seat
from parrot_backend.serving.dispatch.policy import Policy, Turn
from parrot_backend.serving.placement.blocks import blocks_of
from parrot_backend.serving.placement.placement import Placement
from parrot_backend.serving.placement.views import PlacedCall
from parrot_backend.wire.text_protocol import LLMRequest

_Kind = tuple[str, int, frozenset[str]]
"""Calls of one tenant and tier that were lost at the same members find room at the same others."""

_RECALLED = 64
"""Of those that find room again so many come back at once, and the policy says who of them goes."""


@dataclass(frozen=True, slots=True)
class Step:
    """Who goes where; nobody, where a call has only been moved within the queue."""

    placed: tuple[Ticket, Turn, Seat] | None = None


class Queue:
    """See the module; `len` counts those that wait.

    Args:
        policy: the order of those that wait.
        expected: the tokens that an answer is likely to have.
        clock: tells the seconds.
    """

    def __init__(self, policy: Policy, expected: Expected, clock: Callable[[], float]) -> None:
        self.policy = policy
        self.placement = Placement(clock=clock)
        self._expected = expected
        self._tickets: dict[Call, Ticket] = {}
        self._parked: set[Call] = set()
        self._roomless: dict[_Kind, OrderedDict[Call, None]] = {}
        self._kinds: dict[Call, _Kind] = {}
        self._returning: OrderedDict[Call, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tickets)

    @property
    def calls(self) -> list[Call]:
        """Those that wait."""
        return list(self._tickets)

    def enter(self, ticket: Ticket) -> None:
        """A call waits from now on."""
        call = ticket.call
        self._tickets[call] = ticket
        if ticket.placed is None and call.request is not None:
            answer = self._expected(call.rank.site, call.request.max_tokens)
            ticket.placed = placed_call(call, call.request, answer)
        if ticket.placed is not None:
            self.placement.entered(ticket.placed)
        self.policy.enter(call)

    def remove(self, ticket: Ticket) -> None:
        """It waits no longer, if it did."""
        call = ticket.call
        if self._tickets.pop(call, None) is None:
            return
        self.policy.remove(call)
        self._returning.pop(call, None)
        self._parked.discard(call)
        self._take_roomless(call)
        self.ended(ticket)

    def judge(self) -> None:
        """Who has waited for too long for what placement said may choose anew."""
        self._return(self.placement.overdue())

    def step(self, seats: Sequence[Seat]) -> Step | None:
        """Bring one call further; None where nobody who waits may run now."""
        if self._returning:
            self.policy.enter(self._returning.popitem(last=False)[0])
            return Step()
        tiers = self.policy.tiers
        alike = all(seat.member.tenants is None for seat in seats)
        room = None if alike else partial(_tiers_with_room, seats, tiers)
        most = _tiers_with_room(seats, tiers)
        if not most or (turn := self.policy.next(most, room)) is None:
            return self._recall(seats)
        ticket = self._tickets[turn.call]
        if (seat := self._place(ticket, turn, seats)) is None:
            return Step()
        del self._tickets[turn.call]
        return Step((ticket, turn, seat))

    def prospect(self, request: LLMRequest, tenant: str, seats: Sequence[Seat]) -> Seat | None:
        """Where a call that begins so would run, if there were room."""
        if len(seats) <= 1:
            return next(iter(seats), None)
        placed = PlacedCall("", tenant, blocks_of(request, tenant), estimated_prompt(request))
        views = [replace(seat.view(0, 1), room=1) for seat in seats]
        name = self.placement.choose(placed, views)
        self._return(self.placement.ended(placed))
        return next((seat for seat in seats if seat.key == name), seats[0])

    def _place(self, ticket: Ticket, turn: Turn, seats: Sequence[Seat]) -> Seat | None:
        """Where a call runs; None where it has to wait."""
        call = ticket.call
        there = {seat.key: seat for seat in _open_to(call, seats)}
        views = {seat.key: seat.view(turn.tier, self.policy.tiers) for seat in there.values()}
        free = [name for name, view in views.items() if view.free]
        if not free:
            self._kinds[call] = kind = (call.tenant.name, turn.tier, _lost_at(call))
            self._roomless.setdefault(kind, OrderedDict())[call] = None
            return None
        if ticket.placed is None:  # it has no request, and will fail
            return there[free[0]]
        name = self.placement.choose(ticket.placed, list(views.values()))
        if name is None:
            self._parked.add(call)
            return None
        self.placement.started(ticket.placed, views[name])
        return there[name]

    # What those that wait may have waited for

    def computed(self, ticket: Ticket, step: Delta) -> None:
        """The first step of a call that runs has come."""
        if ticket.placed is not None:
            self._return(self.placement.first_token(ticket.placed, *_told(step)))

    def ended(self, ticket: Ticket, told_last: Delta | None = None) -> None:
        """A call runs or waits no longer; `told_last` tells what no step before has."""
        if ticket.placed is not None:
            tokens = ticket.call.completion_tokens
            told = (None, None) if told_last is None else _told(told_last)
            self._return(self.placement.ended(ticket.placed, tokens, *told))

    def changed(self, seat: Seat) -> None:
        """A member is new, of another state, or gone."""
        if seat.gone or seat.state not in ("ready", "draining"):
            self._return(self.placement.lost(seat.key))
        self._return(self.placement.changed())

    def _return(self, placed: Iterable[PlacedCall]) -> None:
        for each in placed:
            call = each.key
            if isinstance(call, Call) and call in self._parked:
                self._parked.discard(call)
                self._returning[call] = None

    def _recall(self, seats: Sequence[Seat]) -> Step | None:
        """Have one choose again that has found no room before, and does now."""
        for (_, tier, _), line in self._roomless.items():
            may = _open_to(next(iter(line)), seats)
            if any(seat.room(tier, self.policy.tiers) for seat in may):
                for call in [*islice(line, _RECALLED)]:
                    self._take_roomless(call)
                    self._returning[call] = None
                return Step()
        return None

    def _take_roomless(self, call: Call) -> None:
        if (kind := self._kinds.pop(call, None)) is not None:
            line = self._roomless[kind]
            del line[call]
            if not line:
                del self._roomless[kind]


def _open_to(call: Call, seats: Sequence[Seat]) -> list[Seat]:
    """The members that a call may run on now.

    Not where it was lost before, so long as there is another: what is wrong with the call, or with that
    engine alone, would be again.
    """
    allowed = [seat for seat in seats if seat.state == "ready" and seat.allows(call.tenant.name)]
    lost_at = _lost_at(call)
    return [seat for seat in allowed if seat.name not in lost_at] or allowed


def _lost_at(call: Call) -> frozenset[str]:
    return frozenset(attempt.engine for attempt in call.lost)


def _tiers_with_room(seats: Sequence[Seat], tiers: int, tenant: str | None = None) -> int:
    """Of how many tiers a call may come to one of the members, or to one that its tenant may use."""
    may = seats if tenant is None else [seat for seat in seats if seat.allows(tenant)]
    return max((seat.tiers_with_room(tiers) for seat in may), default=0)


def _told(step: Delta) -> tuple[int | None, int | None]:
    """What a step tells of its prompt: cached tokens, and all."""
    return step.cached_tokens if step.tells_cached else None, step.prompt_tokens or None
