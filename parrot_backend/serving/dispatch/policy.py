"""`Policy`: in which order calls that wait get a place, and two simple ones to compare with."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from typing import Protocol

from parrot_backend.serving.call import Call
from parrot_backend.serving.dispatch.heap import KeyedHeap
from parrot_backend.serving.placement.blocks import blocks_of

_BLOCKS = 32  # of a prompt
_REMEMBERED = 100_000


Room = Callable[[str], int]
"""Of how many tiers, the first ones, a tenant's calls find room where it may run."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Whose turn it is.

    It takes a slot of its `tier`; those of lower tiers, whose numbers are higher, are not in its way
    where the endpoint preempts. `priority` is the same for the endpoint, the highest first; where
    somebody waits for the call alone it is `interactive`.
    """

    call: Call
    tier: int = 0
    priority: int = 0
    interactive: bool = False


class Policy(Protocol):
    """Keeps the calls that wait for a place."""

    tiers: int
    """How many there are."""

    def __len__(self) -> int:
        """How many calls wait."""
        ...

    def enter(self, call: Call) -> None:
        """A call waits from now on."""
        ...

    def remove(self, call: Call) -> None:
        """It waits no longer, if it did."""
        ...

    def rerank(self, call: Call) -> None:
        """Its rank is another, if it waits."""
        ...

    def next(self, tiers: int, room: Room | None = None) -> Turn | None:
        """Take out who goes first, of the first so many tiers; where not all tenants have the same
        `room`, of those that have some."""
        ...

    def charge(self, call: Call, tokens: float) -> None:
        """So many tokens more were spent on a call; fewer, where an expectation is put right."""
        ...


class FirstCome:
    """In order of arrival; see `Policy`."""

    tiers = 1

    def __init__(self) -> None:
        self._waiting: dict[str, OrderedDict[Call, int]] = {}
        self._numbers = count()

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def enter(self, call: Call) -> None:
        """It goes last."""
        self._waiting.setdefault(call.tenant.name, OrderedDict())[call] = next(self._numbers)

    def remove(self, call: Call) -> None:
        """See `Policy.remove`."""
        if (line := self._waiting.get(call.tenant.name)) is None:
            return
        line.pop(call, None)
        if not line:
            del self._waiting[call.tenant.name]

    def rerank(self, call: Call) -> None:
        """Ranks do not count."""

    def next(self, tiers: int, room: Room | None = None) -> Turn | None:
        """Who came first."""
        lines = [self._waiting[tenant] for tenant in _with_room(self._waiting, tiers, room)]
        heads = [(number, call) for call, number in (next(iter(line.items())) for line in lines)]
        if not heads:
            return None
        first = min(heads, key=lambda head: head[0])[1]
        self.remove(first)
        return Turn(first)

    def charge(self, call: Call, tokens: float) -> None:
        """Nobody's share counts."""


class LongestPrefixFirst:
    """Whose prompt begins with most of what ran before (SGLang's `lpm`), then in order of arrival.

    Prompts are compared in blocks (`placement.blocks`); a block counts with all that is before it.
    """

    tiers = 1

    def __init__(self) -> None:
        self._orders: dict[str, KeyedHeap[Call]] = {}
        self._numbers = count()
        self._blocks: dict[Call, tuple[int, list[int]]] = {}
        self._with_block: dict[int, dict[Call, int]] = {}
        self._computed: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    def enter(self, call: Call) -> None:
        """See `Policy.enter`."""
        blocks = [] if call.request is None else [*blocks_of(call.request, most=_BLOCKS)]
        self._blocks[call] = next(self._numbers), blocks
        for place, block in enumerate(blocks, 1):
            self._with_block.setdefault(block, {})[call] = place
        self._put(call, sum(block in self._computed for block in blocks))

    def remove(self, call: Call) -> None:
        """See `Policy.remove`."""
        if call not in self._blocks:
            return
        order = self._orders[call.tenant.name]
        order.remove(call)
        if not order:
            del self._orders[call.tenant.name]
        for block in self._blocks.pop(call)[1]:
            calls = self._with_block[block]
            del calls[call]
            if not calls:
                del self._with_block[block]

    def rerank(self, call: Call) -> None:
        """Ranks do not count."""

    def next(self, tiers: int, room: Room | None = None) -> Turn | None:
        """Who has most; what it computes counts for those that still wait."""
        heads = (self._orders[t].first() for t in _with_room(self._orders, tiers, room))
        found = min((h for h in heads if h is not None), key=lambda head: head[0], default=None)
        if found is None:
            return None
        first = found[1]
        blocks = self._blocks[first][1]
        self.remove(first)
        for block in blocks:
            if block not in self._computed:
                self._computed[block] = None
                for call, place in self._with_block.get(block, {}).items():
                    self._put(call, place)
        while len(self._computed) > _REMEMBERED:
            self._computed.popitem(last=False)
        return Turn(first)

    def _put(self, call: Call, computed: int) -> None:
        order = self._orders.setdefault(call.tenant.name, KeyedHeap())
        order.put(call, (-computed, self._blocks[call][0]))

    def charge(self, call: Call, tokens: float) -> None:
        """Nobody's share counts."""


def _with_room(tenants: Iterable[str], tiers: int, room: Room | None) -> list[str]:
    """Those who have room, of orders that know one tier."""
    return [t for t in tenants if tiers and (room is None or room(t))]
