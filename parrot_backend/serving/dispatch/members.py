"""`Member`: an endpoint under a name that the operator gave, and `Seat`: what runs on it."""

import asyncio
import copy
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from parrot_backend.endpoints.base import Card, Endpoint, EndpointState
from parrot_backend.serving.placement.views import EngineView
from parrot_backend.serving.rank import TIERS
from parrot_backend.serving.tenants import Tenant
from parrot_backend.wire.errors import ParrotError

Told = TypeVar("Told", bound=ParrotError)

_ENGINE = "the engine"
_LOOPBACK = re.compile(r"(https?://)?(127\.0\.0\.1|localhost|\[::1\]):\d+(/[\w./-]*)?")


@dataclass(frozen=True, slots=True)
class Member:
    """One engine of a server, made and not started.

    `model` is the name that its model has here; None is the one that its card tells. Other members may
    serve a model of the same name, and then share its calls; `weight` is this one's part among equals.
    It runs at most `slots` calls, where that is less than its card says. Only `tenants` may use it, or
    all where that is None. `spec` is what its endpoint is made of, by which a reload knows it again.
    Where `make` makes the endpoint once more, one that could not be started is tried again. One that is
    `exclusive` fills a part of this machine: what takes its place comes when it has gone, not before.
    `place` is where it is, as its endpoint tells it, which is for operators alone.
    """

    name: str
    endpoint: Endpoint
    aliases: tuple[str, ...] = ()
    weight: float = 1.0
    slots: int | None = None
    tenants: frozenset[str] | None = None
    model: str | None = None
    spec: object = None
    make: Callable[[], Endpoint] | None = None
    exclusive: bool = False
    place: str | None = None

    def is_made_as(self, other: "Member") -> bool:
        """Whether the endpoint of one does for the other, whatever else is said of them."""
        return (self.spec, self.model) == (other.spec, other.model)

    @property
    def said(self) -> object:
        """All that its operator says of it, to see whether it is another than before."""
        return self.spec, self.model, self.aliases, self.weight, self.slots, self.tenants


class Seat:
    """A member that is in, and the calls that it runs, by their tiers; belongs to one event loop.

    `key` is its own alone, where another of its name comes or goes. It is `leaving` where it takes no
    more, `going` where it was removed as well, and `gone` in the end; while it is `replaced` another of
    its name is on its way.
    """

    def __init__(self, member: Member, key: str | None = None) -> None:
        self.member = member
        self.name = member.name
        self.key = key or member.name
        self.endpoint = member.endpoint
        self.model = member.model or member.endpoint.card.model.name
        self.leaving = False
        self.going = False
        self.gone = False
        self.replaced = False
        self.interactive = 0
        self.running = [0] * TIERS
        self._emptied = asyncio.Event()
        self._card: Card | None = None
        self._seen: EndpointState = self.state
        self._rooms: dict[int, list[int]] = {}
        self._views: dict[tuple[int, int], EngineView] = {}

    @property
    def state(self) -> EndpointState:
        """The endpoint's; one that an operator drains takes nothing, whatever it says itself."""
        state = self.endpoint.state
        return "draining" if self.leaving and state in ("ready", "starting") else state

    @property
    def why(self) -> str | None:
        """Why it is `dead` or has `failed`, where it has not been told to end."""
        return self.endpoint.why if self.state in ("dead", "failed") else None

    @property
    def card(self) -> Card:
        """The endpoint's, as it was when it said last that something is another."""
        if self._card is None:
            self._card = self.endpoint.card
        return self._card

    @property
    def total(self) -> int:
        """Calls that it runs."""
        return sum(self.running)

    @property
    def slots(self) -> int:
        """Calls that it may run at once, as far as none makes room for another."""
        slots, most = self.card.slots, self.member.slots
        return slots if most is None else min(slots, most)

    def refresh(self) -> None:
        """The endpoint says that something is another."""
        self._card = None
        self._forget()

    def update(self, member: Member) -> None:
        """Its operator says something else of it; the endpoint stays."""
        self.member = replace(member, endpoint=self.endpoint)
        self._forget()

    def allows(self, tenant: str) -> bool:
        """Whether a tenant may use it."""
        return self.member.tenants is None or tenant in self.member.tenants

    def told_to(self, tenant: Tenant, error: Told) -> Told:
        """An error of the endpoint's as a tenant is told it: where the engine is, operators learn."""
        message = error.message
        if not tenant.operator:
            place = self.member.place
            message = _LOOPBACK.sub(_ENGINE, message)
            if place is not None:
                message = re.sub(
                    rf"(https?://)?{re.escape(place)}(?!\w)(/[\w./-]*)?", _ENGINE, message
                )
        if message == error.message:
            return error
        told = copy.copy(error)
        told.message, told.args = message, (message,)
        return told

    def room(self, tier: int, tiers: int) -> int:
        """How many calls of a tier, of so many tiers, may come here now.

        Where the endpoint preempts, those of lower tiers stand in nobody's way. But each holds memory,
        so there are never more than two for a slot; and of what is beyond the slots each tier leaves
        a part to those above it. An operator's limit below the endpoint's is kept to: there nothing
        would be preempted.
        """
        return self._known_rooms(tiers)[tier]

    def tiers_with_room(self, tiers: int) -> int:
        """A call of the first so many tiers, of so many, may come here now."""
        rooms = self._known_rooms(tiers)
        return next((tier for tier in range(tiers) if not rooms[tier]), tiers)

    def view(self, tier: int, tiers: int) -> EngineView:
        """How it stands for a call of a tier."""
        self._notice()
        if (view := self._views.get((tier, tiers))) is None:
            view = self._views[tier, tiers] = EngineView(
                self.key,
                self.slots,
                self.total,
                self.card.sharing,
                self.card.kv_tokens,
                self.member.weight,
                interactive_running=self.interactive,
                ready=self.state == "ready",
                room=self.room(tier, tiers),
            )
        return view

    def take(self, tier: int, *, interactive: bool) -> None:
        """A call runs here from now on."""
        self.running[tier] += 1
        self.interactive += interactive
        self._forget()

    def free(self, tier: int, *, interactive: bool) -> None:
        """It runs no longer, and has freed what it held."""
        self.running[tier] -= 1
        self.interactive -= interactive
        self._forget()
        if not self.total:
            self._emptied.set()

    async def emptied(self, within: float) -> None:
        """Wait until nothing runs here, at most so many seconds."""
        if self.total and within > 0:
            self._emptied.clear()
            try:
                async with asyncio.timeout(within):
                    await self._emptied.wait()
            except TimeoutError:
                return

    # What is known of it until something is another

    def _forget(self) -> None:
        self._rooms.clear()
        self._views.clear()

    def _notice(self) -> None:
        if (state := self.state) != self._seen:
            self._seen = state
            self.refresh()

    def _known_rooms(self, tiers: int) -> list[int]:
        self._notice()
        if (rooms := self._rooms.get(tiers)) is None:
            rooms = self._rooms[tiers] = [self._room(tier, tiers) for tier in range(tiers)]
        return rooms

    def _room(self, tier: int, tiers: int) -> int:
        if self.state != "ready":
            return 0
        card, slots, lowest = self.card, self.slots, tiers - 1
        if not card.preempts or not lowest or slots < card.slots:
            return max(0, slots - self.total)
        taken = sum(self.running[: tier + 1])
        most = slots * (2 * lowest - tier) // lowest
        return max(0, min(slots - taken, most - self.total))
