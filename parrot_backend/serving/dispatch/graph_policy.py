"""`GraphPolicy`: tenants get equal shares, and in each the order follows from what programs say.

    tenants              who had the fewest tokens: virtual counters (VTC, Sheng et al., OSDI'24)
      tiers              a latency output needs it alone > as one of a batch > only throughput
        applications     who had less, in steps of four, then the older one
          calls          the longer way to the output, then the older task group, then arrival

In steps, for an application that has just had a little more than another is not to be interrupted by
it, but a long-lived thread is to let every newcomer pass (program-level attained service in Autellix,
Luo et al., 2025). Who has waited for long goes before all others of its tenant, the oldest first, at
every fourth turn: none waits for ever, and a map that takes minutes does not get in the way of every
chat, as it would if each of its parts that has aged went first. Every change and every decision takes
O(log n).
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from parrot_backend.serving.call import Call
from parrot_backend.serving.dispatch.heap import KeyedHeap
from parrot_backend.serving.dispatch.policy import Room, Turn
from parrot_backend.serving.rank import AGED_PRIORITY, TIERS

_FIRST_LEVEL, _LEVEL_GROWTH = 4096, 4
_REMEMBERED_APPLICATIONS = 10_000
_TURNS_BETWEEN_AGED = 3


@dataclass(slots=True, eq=False)
class _Lane:
    """The calls of one application that wait in one tier."""

    number: int
    single: bool
    calls: KeyedHeap[Call] = field(default_factory=KeyedHeap)


@dataclass(slots=True, eq=False)
class _Tenant:
    """What waits of one tenant, in order and by age, and the tokens that it had.

    `served` counts as if it had always wanted some. `passed` are its turns since one of who has aged.
    """

    name: str
    served: float = 0.0
    passed: int = _TURNS_BETWEEN_AGED
    lanes: dict[tuple[int, int, bool], _Lane] = field(default_factory=dict)
    tiers: tuple[KeyedHeap[_Lane], ...] = field(
        default_factory=lambda: tuple(KeyedHeap() for _ in range(TIERS))
    )
    arrivals: OrderedDict[Call, float] = field(default_factory=OrderedDict)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a call waits."""

    tenant: _Tenant
    tier: int
    lane: _Lane


class GraphPolicy:
    """See the module, and `Policy`.

    Args:
        aging_seconds: who has waited longer goes first.
        clock: tells the seconds.
    """

    tiers = TIERS

    def __init__(self, aging_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._aging_seconds = aging_seconds
        self._clock = clock
        self._tenants: dict[str, _Tenant] = {}  # as many as have keys
        self._by_tier: tuple[KeyedHeap[_Tenant], ...] = tuple(KeyedHeap() for _ in range(TIERS))
        self._places: dict[Call, _Place] = {}
        self._attained: OrderedDict[int, float] = OrderedDict()
        self._last_served = 0.0

    def __len__(self) -> int:
        return len(self._places)

    def enter(self, call: Call) -> None:
        """See `Policy.enter`. A tenant saves up nothing while it has nothing that waits."""
        tenant = self._tenant_of(call)
        if not tenant.arrivals:
            tenant.served = max(tenant.served, self._least_served())
        self._place(call, tenant)
        tenant.arrivals[call] = self._clock()

    def remove(self, call: Call) -> None:
        """See `Policy.remove`."""
        if (place := self._places.get(call)) is not None:
            self._take(call, place)
            del place.tenant.arrivals[call]

    def rerank(self, call: Call) -> None:
        """See `Policy.rerank`. It is as old as before."""
        if (place := self._places.get(call)) is not None:
            self._take(call, place)
            self._place(call, place.tenant)

    def next(self, tiers: int, room: Room | None = None) -> Turn | None:
        """See `Policy.next`. Whose turn it is by age is of the first tier."""
        tenant = self._least(tiers) if room is None else self._least_with(room)
        if tenant is None:
            return None
        tiers = tiers if room is None else room(tenant.name)
        self._last_served = max(self._last_served, tenant.served)
        turn = self._turn(tenant, tiers)
        self.remove(turn.call)
        return turn

    def charge(self, call: Call, tokens: float) -> None:
        """See `Policy.charge`."""
        tenant = self._tenant_of(call)
        tenant.served += tokens
        if tokens < 0:  # one that had more is found out when it comes up
            for order in self._by_tier:
                if tenant in order:
                    order.put(tenant, tenant.served)
        if not call.rank.single:
            self._attain(tenant, call.rank.application, tokens)

    def _tenant_of(self, call: Call) -> _Tenant:
        if (tenant := self._tenants.get(call.tenant.name)) is None:
            tenant = self._tenants[call.tenant.name] = _Tenant(call.tenant.name)
        return tenant

    def _attain(self, tenant: _Tenant, application: int, tokens: float) -> None:
        before = self._level(application)
        self._attained[application] = self._attained.pop(application, 0.0) + tokens
        if len(self._attained) > _REMEMBERED_APPLICATIONS:
            self._attained.popitem(last=False)
        if self._level(application) != before:
            for tier, lanes in enumerate(tenant.tiers):
                if (lane := tenant.lanes.get((tier, application, False))) is not None:
                    lanes.put(lane, self._key_of(lane))

    def _level(self, application: int) -> int:
        level, limit = 0, _FIRST_LEVEL
        attained = self._attained.get(application, 0.0)
        while attained >= limit:
            level, limit = level + 1, limit * _LEVEL_GROWTH
        return level

    def _key_of(self, lane: _Lane) -> tuple[int, int]:
        return (0 if lane.single else self._level(lane.number), lane.number)

    # Places

    def _place(self, call: Call, tenant: _Tenant) -> None:
        rank = call.rank
        key = (rank.tier, rank.application, rank.single)
        if (lane := tenant.lanes.get(key)) is None:
            lane = tenant.lanes[key] = _Lane(rank.application, rank.single)
            tenant.tiers[rank.tier].put(lane, self._key_of(lane))
        lane.calls.put(call, (-rank.work, -rank.path, rank.group, call.queued or 0.0))
        self._places[call] = _Place(tenant, rank.tier, lane)
        if tenant not in self._by_tier[rank.tier]:
            self._by_tier[rank.tier].put(tenant, tenant.served)

    def _take(self, call: Call, place: _Place) -> None:
        del self._places[call]
        tenant, tier, lane = place.tenant, place.tier, place.lane
        lane.calls.remove(call)
        if not lane.calls:
            del tenant.lanes[tier, lane.number, lane.single]
            tenant.tiers[tier].remove(lane)
        if not tenant.tiers[tier]:
            self._by_tier[tier].remove(tenant)

    # Decisions

    def _least(self, tiers: int) -> _Tenant | None:
        """The tenant that had least, of those with calls in the first `tiers`."""
        found = [self._first(order) for order in self._by_tier[:tiers]]
        return min((t for t in found if t is not None), key=lambda t: t.served, default=None)

    def _least_with(self, room: Room) -> _Tenant | None:
        """The same of those with calls in the tiers that they have room for; O(tenants)."""
        found = (t for t in self._tenants.values() if t.arrivals and any(t.tiers[: room(t.name)]))
        return min(found, key=lambda t: t.served, default=None)

    def _first(self, order: KeyedHeap[_Tenant]) -> _Tenant | None:
        while (first := order.first()) is not None:
            key, tenant = first
            if key == tenant.served:
                return tenant
            order.put(tenant, tenant.served)
        return None

    def _least_served(self) -> float:
        least = self._least(self.tiers)
        return self._last_served if least is None else least.served

    def _turn(self, tenant: _Tenant, tiers: int) -> Turn:
        oldest, arrived = next(iter(tenant.arrivals.items()))
        if self._clock() - arrived >= self._aging_seconds:
            if tenant.passed >= _TURNS_BETWEEN_AGED:
                tenant.passed = 0
                return Turn(oldest, 0, AGED_PRIORITY)
            tenant.passed += 1
        for tier, lanes in enumerate(tenant.tiers[:tiers]):
            if (first := lanes.first()) and (best := first[1].calls.first()):
                return Turn(best[1], tier, best[1].rank.priority, interactive=tier == 0)
        raise AssertionError("a tenant is in the order of a tier in which nothing of it waits")
