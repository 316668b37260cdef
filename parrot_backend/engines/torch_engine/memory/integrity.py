"""The integrity check of KV memory: callable between any two operations; slow."""

from collections.abc import Iterable

from parrot_backend.engines.torch_engine.memory.kv_memory import Holding, KVMemory
from parrot_backend.engines.torch_engine.memory.prefix_tree import Node, PrefixTree
from parrot_backend.engines.torch_engine.memory.slots import Run, count_slots


class IntegrityError(Exception):
    """KV memory contradicts itself; the message says where."""


def check_memory(memory: KVMemory, holdings: Iterable[Holding]) -> None:
    """Check that free, own and tree slots are all slots, each once, and that the counts are right.

    Args:
        memory: what is checked.
        holdings: all holdings that are alive.

    Raises:
        IntegrityError: something does not fit.
    """
    holdings = list(holdings)
    runs = memory.slots.free_runs()
    _require(count_slots(runs) == memory.slots.free, "the count of free slots is wrong")
    for holding in holdings:
        runs += holding.own
    for node in memory.tree.nodes():
        _check_node(node)
        runs += node.runs
    _check_partition(runs, memory.capacity)
    _check_holders(memory.tree, holdings)
    _check_counts(memory.tree)
    _check_tenants(memory.tree, holdings)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise IntegrityError(message)


def _check_node(node: Node) -> None:
    _require(count_slots(node.runs) == len(node.tokens), f"{node.tokens}: slots do not match")
    start = node.parent.end if node.parent else 0
    _require(node.end == start + len(node.tokens), f"{node.tokens}: its end is wrong")
    _require(bool(node.tokens) or node.parent is None, "a node below the root is empty")
    _require(
        bool(node.children) or node.parent is not None or node.users > 0, "an unused tree is kept"
    )
    for token, child in node.children.items():
        _require(child.parent is node, f"{child.tokens}: its parent is another one")
        _require(child.tokens[:1] == [token], f"{child.tokens}: filed under {token}")


def _check_partition(runs: list[Run], capacity: int) -> None:
    end = 0
    for run in sorted(runs):
        _require(run.length > 0, f"an empty run at slot {run.start}")
        _require(run.start == end, f"slots {min(run.start, end)} to {max(run.start, end)}")
        end = run.start + run.length
    _require(end == capacity, f"slots {end} to {capacity} are lost")


def _check_holders(tree: PrefixTree, holdings: list[Holding]) -> None:
    users: dict[Node, int] = {}
    for holding in holdings:
        for node in holding.node.path():
            users[node] = users.get(node, 0) + 1
        shared = [run for node in holding.node.path() for run in node.runs]
        _require(_slots(shared + holding.own) == _slots(holding.runs), "a holding's runs are stale")
    for node in tree.nodes():
        _require(node.users == users.pop(node, 0), f"{node.tokens}: its users are miscounted")
    _require(not users, "a holding ends in a node that left the tree")


def _check_counts(tree: PrefixTree) -> None:
    nodes = [node for node in tree.nodes() if node.parent is not None]
    cached = sum(len(node.tokens) for node in nodes if not node.users)
    _require(cached == tree.cached, f"{cached} tokens are cached, {tree.cached} are counted")
    shared = sum(len(node.tokens) for node in nodes if node.users > 1)
    _require(shared == tree.shared, f"{shared} tokens are shared, {tree.shared} are counted")
    _require(len(nodes) == tree.size, f"{len(nodes)} nodes, {tree.size} are counted")
    leaves = {node for node in nodes if not node.children}
    _require(leaves == tree.leaves, "the set of leaves is wrong")


def _check_tenants(tree: PrefixTree, holdings: list[Holding]) -> None:
    slots, cached = dict.fromkeys(tree.roots.values(), 0), dict.fromkeys(tree.roots.values(), 0)
    for node in tree.nodes():
        _require(node.root is node.path()[0], f"{node.tokens}: its root is another one")
        slots[node.root] += len(node.tokens)
        cached[node.root] += 0 if node.users else len(node.tokens)
    for holding in holdings:
        slots[holding.node.root] += count_slots(holding.own)
    for tenant, root in tree.roots.items():
        _require(root.slots == slots[root], f"{tenant!r} has {slots[root]} slots, not {root.slots}")
        _require(
            root.cached == cached[root], f"{tenant!r} caches {cached[root]}, not {root.cached}"
        )


def _slots(runs: Iterable[Run]) -> list[int]:
    return [slot for run in runs for slot in range(run.start, run.start + run.length)]
