"""Prefill ahead: what calls that are still to come begin with, computed where there is room.

A planned call waits for the answers that it reads; its beginning is known before. It is computed in
rows that a step has anyway, and lies in the prefix tree when the call starts. Nothing is held between
steps, so that whoever comes takes the memory, and what is forgotten stops at once.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from parrot_backend.engines.torch_engine.memory.kv_memory import Holding, KVMemory
from parrot_backend.engines.torch_engine.memory.prefix_tree import common_length

# Products go through rows in tiles of six (`forward/cpu/microkernels.py`), which read the weights once:
# beside decodes the last tile is filled, and no more.
TILE_ROWS = 6
# An idle engine computes so many at once: who comes meanwhile waits for a fraction of a second.
_IDLE_ROWS = 128
# Of hints whose tokens are all there already, no more are passed over in a step.
_PASSED_OVER = 16


@dataclass(eq=False, slots=True)
class Hint:
    """A beginning that is expected, and the parts of it, `[start, stop)`, that were computed for it
    and that nobody has used yet."""

    tenant: str
    tokens: Sequence[int]
    unused: list[tuple[int, int]] = field(default_factory=list)


@dataclass(slots=True)
class AheadWork:
    """The next `count` tokens of a hint, for which `holding` has slots."""

    hint: Hint
    start: int
    count: int
    holding: Holding

    @property
    def tokens(self) -> list[int]:
        """What is to be computed."""
        return list(self.hint.tokens[self.start : self.start + self.count])


class PrefillAhead:
    """The hints, and the work that they make; the first that came is computed first.

    `prefilled` counts tokens computed ahead; of these, a sequence that started found `used`, and
    `wasted` were forgotten before.
    """

    def __init__(self, memory: KVMemory) -> None:
        self.prefilled = 0
        self.used = 0
        self.wasted = 0
        self._memory = memory
        self._hints: dict[Hashable, Hint] = {}
        self._pending: dict[Hashable, Hint] = {}
        self._stalled = False

    @property
    def busy(self) -> bool:
        """Whether it may have something to compute."""
        return bool(self._pending) and not self._stalled

    def add(self, who: Hashable, tenant: str, tokens: Sequence[int]) -> None:
        """Compute what `tokens` begin with, until `who` is forgotten."""
        self._hints[who] = self._pending[who] = Hint(tenant, tokens)
        self.wake()

    def forget(self, who: Hashable) -> None:
        """Stop; a hint that goes on where this one ends takes over what is there."""
        hint = self._hints.pop(who, None)
        self._pending.pop(who, None)
        self.wake()
        if hint is None or not hint.unused:
            return
        heir = next((other for other in self._hints.values() if _continues(hint, other)), None)
        if heir is not None:
            heir.unused += hint.unused
        else:
            self.wasted += sum(stop - start for start, stop in hint.unused)

    def wake(self) -> None:
        """There may be room again."""
        self._stalled = False

    def found(self, tenant: str, tokens: Sequence[int], length: int) -> None:
        """A sequence has started behind the first `length` of its `tokens`."""
        for hint in self._hints.values():
            if hint.unused and hint.tenant == tenant:
                known = min(length, common_length(hint.tokens, tokens))
                self.used += sum(max(0, min(b, known) - a) for a, b in hint.unused)
                hint.unused = [(max(a, known), b) for a, b in hint.unused if b > known]

    def plan(self, rows: int, budget: int) -> AheadWork | None:
        """What can be computed beside the `rows` of a step's other work, in slots that nobody needs.

        Args:
            budget: tokens that an idle engine computes in a step at most.
        """
        most = -rows % TILE_ROWS if rows else min(_IDLE_ROWS, budget)
        for who, hint in list(islice(self._pending.items(), _PASSED_OVER if most else 0)):
            if self._stalled:
                break
            holding = self._memory.acquire(hint.tenant, hint.tokens)
            missing = len(hint.tokens) - holding.length
            count = self._memory.extend_spare(holding, min(most, missing))
            if count:
                return AheadWork(hint, holding.node.end, count, holding)
            self._memory.release(holding, [])
            if missing:
                self._stalled = True
            else:
                del self._pending[who]
        return None

    def done(self, work: AheadWork) -> None:
        """The work is computed: it is cached now."""
        self.prefilled += work.count
        work.hint.unused.append((work.start, work.start + work.count))
        self._memory.release(work.holding, work.tokens)

    def failed(self, work: AheadWork) -> None:
        """The work could not be computed, and is not tried again."""
        self._memory.forget(work.holding)
        self._pending = {who: hint for who, hint in self._pending.items() if hint is not work.hint}


def _continues(hint: Hint, other: Hint) -> bool:
    same = other.tenant == hint.tenant
    return same and common_length(hint.tokens, other.tokens) == len(hint.tokens)
