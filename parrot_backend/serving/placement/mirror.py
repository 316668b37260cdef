"""Mirrors: what an engine is likely to have in its KV cache, as seen from the calls that it was given.

    least recent                       most recent
    [c3 | b2 b1 | answer | a3 a2 a1]                   a1 is the head of prompt a, a3 its tail

A prompt's tail is older than its head, as where it is freed tail first (vLLM, and our own tree), so
what goes first is a tail, and whoever has a block has those before it. What else takes room, answers
and ends of prompts that are no whole block, has entries that nobody looks up.
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import count

from parrot_backend.serving.placement.blocks import BLOCK_TOKENS, common, leading

_UNKNOWN = 65_536  # tokens of an engine that doesn't tell how many it keeps
_LEAST, _MOST = 4_096, 4_194_304  # tokens that are believed of one
_SHRINK, _GROW = 0.9, 1.1
_SLACK = 2  # blocks: templates, and blocks of other sizes than ours

_Filler = tuple[int]


class PrefixMirror:
    """A prefix cache over all that an engine computes, the least recently used out first.

    Args:
        tokens: that it keeps; None where it doesn't tell, and it is learned from what it had.
    """

    def __init__(self, tokens: int | None = None) -> None:
        self._learns = tokens is None
        self._blocks = _bounded(_UNKNOWN if tokens is None else tokens)
        self._entries: OrderedDict[int | _Filler, int] = OrderedDict()
        self._fillers = count()
        self.touches = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def tokens(self) -> int:
        """How many it is believed to keep."""
        return round(self._blocks * BLOCK_TOKENS)

    def held(self, blocks: Sequence[int]) -> int:
        """How many of a prompt's blocks it has."""
        return leading(blocks, self._entries)

    def touch(self, blocks: Sequence[int], others: float = 0) -> None:
        """A prompt was computed, and so many tokens that nobody looks up."""
        self.touches += 1
        for _ in range(int(min(others / BLOCK_TOKENS, self._blocks))):
            self._entries[(next(self._fillers),)] = self.touches
        for block in reversed(blocks):
            self._entries[block] = self.touches
            self._entries.move_to_end(block)
        self._age()

    def correct(self, blocks: Sequence[int], believed: int, told: int, since: int) -> None:
        """When `touches` was `since` a prompt had `told` blocks there, and `believed` were thought of.

        What was older than a block that had gone had gone as well. But where it was touched since, its
        age tells nothing.
        """
        if abs(told - believed) <= _SLACK:
            return
        if self._learns:
            factor = _SHRINK if told < believed else _GROW
            self._blocks = _bounded(self._blocks * BLOCK_TOKENS * factor)
        if told < believed and self._entries.get(blocks[believed - 1], since + 1) <= since:
            while self._entries.popitem(last=False)[0] != blocks[believed - 1]:
                pass
        self._age()

    def _age(self) -> None:
        while len(self._entries) > self._blocks:
            self._entries.popitem(last=False)


class SlotMirror:
    """Slots that each have what ran in them last (llama.cpp).

    Args:
        slots: how many there are.
    """

    def __init__(self, slots: int) -> None:
        self.most = slots
        self._running = 0
        self._idle: OrderedDict[int, tuple[int, ...]] = OrderedDict()
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._idle)

    def held(self, blocks: Sequence[int]) -> int:
        """How many of a prompt's blocks the best of the idle slots has."""
        return max((common(has, blocks) for has in self._idle.values()), default=0)

    def take(self, blocks: Sequence[int]) -> None:
        """A call takes the slot that has most of it, else an empty one, else the longest idle."""
        self._running += 1
        if self.held(blocks) or len(self._idle) + self._running > self.most:
            best = max(self._idle, key=lambda slot: common(self._idle[slot], blocks), default=None)
            if best is not None:
                del self._idle[best]

    def leave(self, blocks: tuple[int, ...]) -> None:
        """A call's slot is idle, and has what it computed."""
        self._running -= 1
        self._idle[next(self._numbers)] = blocks
        while len(self._idle) > max(1, self.most - self._running):
            self._idle.popitem(last=False)


def _bounded(tokens: float) -> float:
    return min(max(tokens, _LEAST), _MOST) / BLOCK_TOKENS
