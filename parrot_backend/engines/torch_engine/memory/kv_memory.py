"""KV memory: what sequences hold and what the prefix tree caches, over one set of slots."""

from collections.abc import Hashable, Sequence

from parrot_backend.engines.torch_engine.memory.prefix_tree import Node, PrefixTree
from parrot_backend.engines.torch_engine.memory.slots import (
    Run,
    SlotAllocator,
    append_runs,
    count_slots,
    split_runs,
)

# At least one of so many parts of the memory is evicted at once: to look up what is expected takes
# milliseconds where many calls wait, too long for each token of a step.
_PARTS = 64


class Holding:
    """The slots of one sequence: those of the tree down to `node`, then its `own`.

    [0, node.end) in the tree, shared    [node.end, length) its own
    """

    __slots__ = ("_shared", "node", "own")

    def __init__(self, node: Node) -> None:
        self.own: list[Run] = []
        self.move(node)

    def move(self, node: Node) -> None:
        """Let the shared part end with `node`, which is held."""
        self.node = node
        self._shared: list[Run] = []
        for step in node.path():
            append_runs(self._shared, step.runs)

    @property
    def length(self) -> int:
        """Tokens that there are slots for."""
        return self.node.end + count_slots(self.own)

    @property
    def runs(self) -> list[Run]:
        """The slots of tokens 0 to `length`, in order."""
        runs = list(self._shared)
        append_runs(runs, self.own)
        return runs

    @property
    def last_slot(self) -> int | None:
        """Where the last token lies, so that the next can be laid beside it."""
        runs = self.own or self._shared
        return runs[-1].start + runs[-1].length - 1 if runs else None


class KVMemory:
    """Gives slots to sequences and keeps what they computed; not thread-safe.

    Every slot is free, held by a sequence (`used`) or only in the tree (`cached`). Slots are handed
    out as long as there are free or cached ones: caching never keeps a sequence from running. Where a
    tenant may have only a `share` of them, its own cached ones make room for more.
    `expected` are the prefixes that will be needed, each of a tenant, by who needs it.

    Args:
        capacity: slots, one per token.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.slots = SlotAllocator(capacity)
        self.tree = PrefixTree()
        self.evicted = 0
        self.expected: dict[Hashable, tuple[str, Sequence[int]]] = {}

    @property
    def cached(self) -> int:
        """Tokens that only the tree keeps."""
        return self.tree.cached

    @property
    def available(self) -> int:
        """Slots that `extend` can give: the free ones and the cached ones."""
        return self.slots.free + self.tree.cached

    @property
    def used(self) -> int:
        """Slots that sequences hold."""
        return self.capacity - self.available

    def match(self, tenant: str, tokens: Sequence[int]) -> int:
        """Length of the longest prefix of `tokens` that `acquire` would find."""
        return self.tree.match(tenant, tokens)

    def expect(self, who: Hashable, tenant: str, tokens: Sequence[int]) -> None:
        """Evict what is cached of `tokens` last, until `who` is forgotten."""
        self.expected[who] = tenant, tokens

    def unexpect(self, who: Hashable) -> None:
        """Forget that `who` is to come, if it was expected."""
        self.expected.pop(who, None)

    def acquire(self, tenant: str, tokens: Sequence[int]) -> Holding:
        """Hold the longest prefix of `tokens` that the tenant has computed."""
        return Holding(self.tree.acquire(tenant, tokens))

    def limit(self, share: float) -> int:
        """Slots that a tenant with this share may have, used and cached together."""
        return int(self.capacity * share)

    def left_of_share(self, holding: Holding, share: float) -> int:
        """Slots that the tenant of `holding` may still get, its own cached ones among them."""
        root = holding.node.root
        return self.limit(share) - root.slots + root.cached

    def room(self, holding: Holding, share: float = 1.0) -> int:
        """Slots that `extend` can give."""
        return min(self.available, self.left_of_share(holding, share))

    def extend(self, holding: Holding, count: int, share: float = 1.0) -> bool:
        """Add `count` slots to `holding`; False, and nothing done, where there is no `room`."""
        if count > self.room(holding, share):
            return False
        root = holding.node.root
        if (over := root.slots + count - self.limit(share)) > 0 and share < 1:
            self._evict(over, root)
        if (missing := count - self.slots.free) > 0:
            self._evict(missing)
        append_runs(holding.own, self.slots.allocate(count, holding.last_slot))
        root.slots += count
        return True

    def extend_spare(self, holding: Holding, most: int) -> int:
        """Add at most `most` slots that are free, or cached for nobody expected; returns how many."""
        if (missing := most - self.slots.free) > 0:
            self._evict(missing, spare_only=True)
        count = min(most, self.slots.free)
        self.extend(holding, count)
        return count

    def _evict(self, missing: int, of: Node | None = None, *, spare_only: bool = False) -> None:
        most = max(missing, self.capacity // _PARTS)
        evicted = self.tree.evict(most, self.expected.values(), of, spare_only=spare_only)
        self.evicted += count_slots(evicted)
        self.slots.release(evicted)

    def shorten(self, holding: Holding, length: int) -> None:
        """Give back the slots behind the first `length` tokens, which are not in the tree."""
        holding.own, surplus = split_runs(holding.own, length - holding.node.end)
        self._give_back(holding, surplus)

    def following(self, holding: Holding, tokens: Sequence[int], most: int) -> list[int]:
        """At most `most` tokens that were computed before after the shared part and `tokens`."""
        return self.tree.following(holding.node, tokens, most)

    def commit(self, holding: Holding, tokens: list[int]) -> None:
        """Share the first of the own slots, in which `tokens` are computed, through the tree."""
        computed, holding.own = split_runs(holding.own, len(tokens))
        node, surplus = self.tree.extend(holding.node, tokens, computed)
        self._give_back(holding, surplus)
        holding.move(node)

    def release(self, holding: Holding, tokens: list[int]) -> None:
        """Commit `tokens`, and let everything else go; the holding is dead then."""
        self.commit(holding, tokens)
        self._give_back(holding, holding.own)
        self.tree.release(holding.node)

    def forget(self, holding: Holding) -> None:
        """Let everything go without caching it: what was computed can't be trusted."""
        self._give_back(holding, holding.own)
        self.slots.release(self.tree.forget(holding.node))

    def _give_back(self, holding: Holding, runs: list[Run]) -> None:
        holding.node.root.slots -= count_slots(runs)
        self.slots.release(runs)
