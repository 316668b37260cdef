"""What the graph says before anything runs: whom somebody waits for, and how long the way is.

Objectives are deduced from the outputs backward (Parrot, OSDI'24, section 5.2): a call upstream of a
latency output is latency-critical, and among those the one with the longest remaining path goes first.
"""

from parrot_backend.program.graph import Graph, Node, inputs_of
from parrot_backend.protocol import Objective, SemanticCall

_LATENCY: frozenset[Objective] = frozenset({"latency", "ttft", "tpot"})
_LATENCY_CRITICAL = 1 << 20


def priorities(graph: Graph) -> dict[str, int]:
    """Priority by call id, higher first: latency-critical calls, then by remaining path in calls.

    A program that names no output gets no preference: every priority is the remaining path.
    """
    remaining = _remaining_paths(graph)
    critical = _upstream(graph, [v for v, o in graph.outputs.items() if o in _LATENCY])
    return {
        call.id: remaining[call.output] + (_LATENCY_CRITICAL if call.output in critical else 0)
        for call in graph.calls.values()
    }


def _remaining_paths(graph: Graph) -> dict[str, int]:
    """Longest path from each variable to the end of the graph, counted in calls, its own included."""
    remaining: dict[str, int] = {}
    for name in _consumers_first(graph):
        after = max((remaining[node.output] for node in graph.consumers.get(name, [])), default=0)
        remaining[name] = after + isinstance(graph.producers[name], SemanticCall)
    return remaining


def _consumers_first(graph: Graph) -> list[str]:
    order: list[str] = []
    seen: set[str] = set()
    for root in graph.producers:
        stack: list[tuple[str, bool]] = [(root, False)]
        while stack:
            name, expanded = stack.pop()
            if expanded:
                order.append(name)
            elif name not in seen:
                seen.add(name)
                stack.append((name, True))
                stack += [(node.output, False) for node in graph.consumers.get(name, [])]
    return order


def _upstream(graph: Graph, outputs: list[str]) -> set[str]:
    """The variables that the outputs are made from, themselves included."""
    found: set[str] = set()
    stack = list(outputs)
    while stack:
        name = stack.pop()
        if name in found:
            continue
        found.add(name)
        producer: Node | None = graph.producers[name]
        if producer is not None:
            stack += inputs_of(producer)
    return found
