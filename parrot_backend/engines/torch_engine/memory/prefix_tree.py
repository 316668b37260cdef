"""The prefix tree: a radix tree over token ids whose nodes own the slots of computed tokens.

Every tenant has a tree of its own, so nothing is ever shared between tenants. A node is *held* while
a sequence's path goes through it; what is not held is *cached*: it can be matched, and it is evicted,
the least recently used leaf first, when slots are needed; what is known to be needed again goes last.
The idea is SGLang's RadixAttention (arXiv 2312.07104, section 3), here with a granularity of one token.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence

from parrot_backend.engines.torch_engine.memory.slots import (
    Run,
    append_runs,
    count_slots,
    split_runs,
)

_FIRST_COMPARISON = 32


def common_length(left: Sequence[int], right: Sequence[int], offset: int = 0) -> int:
    """How many tokens `left` and `right[offset:]` have in common from their start."""
    limit = min(len(left), len(right) - offset)
    done, size = 0, _FIRST_COMPARISON
    while done < limit:
        stop = min(done + size, limit)
        ours, theirs = left[done:stop], right[offset + done : offset + stop]
        if ours != theirs:
            pairs = enumerate(zip(ours, theirs, strict=True))
            return done + next(index for index, (a, b) in pairs if a != b)
        done, size = stop, size * 2
    return limit


class Node:
    """A run of tokens below `parent`, and their slots.

    `end` tokens lie between the root and this node's end; `users` sequences hold it, counted also in
    every node above. A `root` also counts its tenant's `slots`, in the tree or a sequence's own, and
    those of them that are `cached`.
    """

    __slots__ = (
        "cached",
        "children",
        "end",
        "last_used",
        "parent",
        "root",
        "runs",
        "slots",
        "tokens",
        "users",
    )

    def __init__(self, parent: "Node | None", tokens: list[int], runs: list[Run]) -> None:
        self.parent = parent
        self.root: Node = parent.root if parent else self
        self.slots = 0
        self.cached = 0
        self.tokens = tokens
        self.runs = runs
        self.children: dict[int, Node] = {}
        self.users = 0
        self.last_used = 0
        self.end: int = len(tokens) + (parent.end if parent else 0)

    def path(self) -> list["Node"]:
        """The nodes from the root to this one."""
        nodes: list[Node] = []
        node: Node | None = self
        while node is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]


class PrefixTree:
    """All tenants' trees, of `size` nodes without their roots.

    `cached` counts the tokens that no sequence holds, `shared` those that several do.
    """

    def __init__(self) -> None:
        self.cached = 0
        self.shared = 0
        self.size = 0
        self.roots: dict[str, Node] = {}
        self.leaves: set[Node] = set()
        self._clock = 0

    def match(self, tenant: str, tokens: Sequence[int]) -> int:
        """Length of the longest prefix of `tokens` that is in the tenant's tree."""
        return sum(shared for _, shared in self._matching(tenant, tokens))

    def _matching(self, tenant: str, tokens: Sequence[int]) -> Iterator[tuple[Node, int]]:
        """The nodes that `tokens` go through, and how many tokens of each they share."""
        node, matched = self.roots.get(tenant), 0
        while node is not None and matched < len(tokens):
            node = node.children.get(tokens[matched])
            if node is not None:
                shared = common_length(node.tokens, tokens, matched)
                yield node, shared
                matched += shared
                node = node if shared == len(node.tokens) else None

    def following(self, node: Node, tokens: Sequence[int], most: int) -> list[int]:
        """At most `most` tokens that came after `tokens` below `node` before; none if nothing did."""
        position = 0
        while position < len(tokens):
            if (child := node.children.get(tokens[position])) is None:
                return []
            shared = common_length(child.tokens, tokens, position)
            position += shared
            if shared < len(child.tokens):
                rest = child.tokens[shared : shared + most]
                return rest if position == len(tokens) else []
            node = child
        latest = max(node.children.values(), key=lambda child: child.last_used, default=None)
        return latest.tokens[:most] if latest else []

    def acquire(self, tenant: str, tokens: Sequence[int]) -> Node:
        """Hold the longest prefix of `tokens` that is there; the node returned ends where it ends."""
        node = self.roots.setdefault(tenant, Node(None, [], []))
        self._hold(node)
        while node.end < len(tokens) and (child := node.children.get(tokens[node.end])):
            node = self._split(child, common_length(child.tokens, tokens, node.end))
            self._hold(node)
        return node

    def extend(self, node: Node, tokens: list[int], runs: list[Run]) -> tuple[Node, list[Run]]:
        """Move a holder of `node` down to where `tokens`, which `runs` hold, end below it.

        Returns:
            The node now held, and those of `runs` that the tree does not need, as it has the same
            tokens already.
        """
        surplus: list[Run] = []
        while tokens and (child := node.children.get(tokens[0])):
            node = self._split(child, common_length(child.tokens, tokens))
            self._hold(node)
            known, runs = split_runs(runs, len(node.tokens))
            tokens = tokens[len(node.tokens) :]
            surplus += known
        return (self._grow(node, tokens, runs) if tokens else node), surplus

    def release(self, node: Node) -> None:
        """Stop holding `node`; what nobody else holds becomes cached."""
        self._clock += 1
        for step in node.path():
            step.users -= 1
            step.last_used = self._clock
            if not step.users:
                self._count_cached(step, len(step.tokens))
            elif step.users == 1:
                self.shared -= len(step.tokens)
        self._drop_empty_root(node)

    def forget(self, node: Node) -> list[Run]:
        """Stop holding `node`, and drop what nobody else holds or continues; returns its slots."""
        self.release(node)
        dropped: list[Run] = []
        while node.parent is not None and not node.users and not node.children:
            dropped += self._cut(node, 0)
            node = node.parent
        return dropped

    def evict(
        self,
        count: int,
        needed: Iterable[tuple[str, Sequence[int]]] = (),
        of: Node | None = None,
        *,
        spare_only: bool = False,
    ) -> list[Run]:
        """Drop `count` cached tokens, or all, and return their slots; only those below the root `of`.

        The least recently used go first, and prefixes that are `needed`, each of a tenant, last, or
        never where only what is to spare may go.
        """
        keep: dict[Node, int] = {}
        for tenant, tokens in needed:
            for node, shared in self._matching(tenant, tokens):
                keep[node] = max(shared, keep.get(node, 0))
        evicted = self._evict(count, keep, of)
        missing = 0 if spare_only else count - count_slots(evicted)
        return evicted + self._evict(missing, {}, of) if keep and missing > 0 else evicted

    def _evict(self, count: int, keep: dict[Node, int], of: Node | None) -> list[Run]:
        """Drop at most `count` cached tokens, without the first `keep` of a node."""
        heap = [
            (leaf.last_used, id(leaf), leaf)
            for leaf in self.leaves
            if not leaf.users and of in (None, leaf.root)
        ]
        heapq.heapify(heap)
        evicted: list[Run] = []
        while count > 0 and heap:
            node = heapq.heappop(heap)[2]
            parent, size = node.parent, len(node.tokens)
            rest = max(keep.get(node, 0), size - count)
            evicted += self._cut(node, rest)
            count -= size - rest
            if parent in self.leaves and not parent.users:
                heapq.heappush(heap, (parent.last_used, id(parent), parent))
        return evicted

    def nodes(self) -> Iterator[Node]:
        """All nodes, parents first, roots included."""
        pending = list(self.roots.values())
        while pending:
            node = pending.pop()
            yield node
            pending.extend(node.children.values())

    def _hold(self, node: Node) -> None:
        if not node.users:
            self._count_cached(node, -len(node.tokens))
        elif node.users == 1:
            self.shared += len(node.tokens)
        node.users += 1

    def _count_cached(self, node: Node, more: int) -> None:
        self.cached += more
        node.root.cached += more

    def _grow(self, node: Node, tokens: list[int], runs: list[Run]) -> Node:
        """A sequence's growing prompt stays one node as long as nobody shares or continues it."""
        if node.parent and not node.children and node.users == 1:
            node.tokens.extend(tokens)
            append_runs(node.runs, runs)
            node.end += len(tokens)
            return node
        child = Node(node, tokens, runs)
        child.users = 1
        self.size += 1
        node.children[tokens[0]] = child
        self.leaves.discard(node)
        self.leaves.add(child)
        return child

    def _split(self, node: Node, at: int) -> Node:
        """Cut `node` in two after `at` tokens, and return the upper one."""
        if at == len(node.tokens) or node.parent is None:
            return node
        head, tail = split_runs(node.runs, at)
        upper = Node(node.parent, node.tokens[:at], head)
        upper.users, upper.last_used = node.users, node.last_used
        node.parent.children[upper.tokens[0]] = upper
        node.parent, node.tokens, node.runs = upper, node.tokens[at:], tail
        upper.children[node.tokens[0]] = node
        self.size += 1
        return upper

    def _cut(self, node: Node, keep: int) -> list[Run]:
        """Shorten a cached leaf to its first `keep` tokens; with none it leaves the tree."""
        kept, dropped = split_runs(node.runs, keep)
        self._count_cached(node, keep - len(node.tokens))
        node.root.slots -= len(node.tokens) - keep
        if keep == 0 and node.parent is not None:
            del node.parent.children[node.tokens[0]]
            self.size -= 1
            self.leaves.discard(node)
            if node.parent.parent is not None and not node.parent.children:
                self.leaves.add(node.parent)
            self._drop_empty_root(node.parent)
        else:
            node.end -= len(node.tokens) - keep
            node.tokens, node.runs = node.tokens[:keep], kept
        return dropped

    def _drop_empty_root(self, node: Node) -> None:
        if node.parent is None and not node.users and not node.children:
            tenant = next(name for name, root in self.roots.items() if root is node)
            del self.roots[tenant]
