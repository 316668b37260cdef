"""`Policy`: in which order calls that wait get a place, and two simple ones to compare with."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from parrot_backend.serving.call import Call
from parrot_backend.serving.dispatch.heap import KeyedHeap
from parrot_backend.wire.text_protocol import LLMRequest, PromptRequest

_BLOCK, _BLOCKS = (
    256,
    32,
)  # characters of a block, about what 64 tokens have, and blocks of a prompt
_REMEMBERED = 100_000


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

    def next(self, tiers: int) -> Turn | None:
        """Take out who goes first, of the first so many tiers."""
        ...

    def charge(self, call: Call, tokens: float) -> None:
        """So many tokens more were spent on a call; fewer, where an expectation is put right."""
        ...


class FirstCome:
    """In order of arrival; see `Policy`."""

    tiers = 1

    def __init__(self) -> None:
        self._waiting: OrderedDict[Call, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, call: Call) -> None:
        """It goes last."""
        self._waiting[call] = None

    def remove(self, call: Call) -> None:
        """See `Policy.remove`."""
        self._waiting.pop(call, None)

    def rerank(self, call: Call) -> None:
        """Ranks do not count."""

    def next(self, tiers: int) -> Turn | None:
        """Who came first."""
        return Turn(self._waiting.popitem(last=False)[0]) if tiers and self._waiting else None

    def charge(self, call: Call, tokens: float) -> None:
        """Nobody's share counts."""


class LongestPrefixFirst:
    """Whose prompt begins with most of what ran before (SGLang's `lpm`), then in order of arrival.

    Prompts are compared in blocks of characters; a block counts with all that is before it.
    """

    tiers = 1

    def __init__(self) -> None:
        self._order: KeyedHeap[Call] = KeyedHeap()
        self._blocks: dict[Call, list[int]] = {}
        self._with_block: dict[int, dict[Call, int]] = {}
        self._computed: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._order)

    def enter(self, call: Call) -> None:
        """See `Policy.enter`."""
        blocks = self._blocks[call] = [] if call.request is None else [*blocks_of(call.request)]
        for count, block in enumerate(blocks, 1):
            self._with_block.setdefault(block, {})[call] = count
        self._order.put(call, -sum(block in self._computed for block in blocks))

    def remove(self, call: Call) -> None:
        """See `Policy.remove`."""
        self._order.remove(call)
        for block in self._blocks.pop(call, ()):
            calls = self._with_block[block]
            del calls[call]
            if not calls:
                del self._with_block[block]

    def rerank(self, call: Call) -> None:
        """Ranks do not count."""

    def next(self, tiers: int) -> Turn | None:
        """Who has most; what it computes counts for those that still wait."""
        first = self._order.first()
        if first is None or not tiers:
            return None
        blocks = self._blocks[first[1]]
        self.remove(first[1])
        for block in blocks:
            if block not in self._computed:
                self._computed[block] = None
                for call, count in self._with_block.get(block, {}).items():
                    self._order.put(call, -count)
        while len(self._computed) > _REMEMBERED:
            self._computed.popitem(last=False)
        return Turn(first[1])

    def charge(self, call: Call, tokens: float) -> None:
        """Nobody's share counts."""


def blocks_of(request: LLMRequest) -> Iterator[int]:
    """A number for each block of the prompt's text, with all that is before it."""
    if not isinstance(request, PromptRequest):
        text = "\0".join(f"{message.role}\0{message.content}" for message in request.messages)
    else:
        text = request.prompt if isinstance(request.prompt, str) else repr(request.prompt)
    number = 0
    for start in range(0, min(len(text), _BLOCK * _BLOCKS) - _BLOCK + 1, _BLOCK):
        number = hash((number, text[start : start + _BLOCK]))
        yield number
