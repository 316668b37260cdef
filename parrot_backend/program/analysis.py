"""What the graph says before anything runs: who waits for a call, beside whom, and how long the way is.

Deduced from the outputs backward (Parrot, OSDI'24, section 5.2). A call upstream of a latency output
is latency-critical. Calls that are equally far from the end and feed the same call are a task group:
only the last of them to end matters, so they are served as one batch. So are calls that feed the
members of a group, one stage before:

    a1 -> b1 \\
    a2 -> b2 -> c     b1 b2 b3 are the group c.inputs, a1 a2 a3 the group c.inputs.2
    a3 -> b3 /
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import groupby

from parrot_backend.program.graph import Graph, Node
from parrot_backend.wire.protocol import Objective, Output, SemanticCall


@dataclass(frozen=True, slots=True)
class Deduction:
    """What is deduced for one call.

    `path` counts the calls from this one to the farthest output, `group_size` the calls of its task
    group. The objective inside a group is throughput, also where the group is latency-critical.
    """

    objective: Objective
    critical: bool
    path: int
    group: str | None = None
    group_size: int | None = None
    work: float = 0.0
    site: str = ""


def deduce(graph: Graph, objective: Objective = "latency") -> dict[str, Deduction]:
    """The deductions by call id.

    In a graph that names no output, what nobody reads is wanted with `objective`.
    """
    outputs = graph.outputs or {
        name: Output(variable=name, objective=objective)
        for name in graph.producers
        if not graph.consumers.get(name)
    }
    paths = _remaining_paths(graph)
    critical = _upstream(graph, [v for v, o in outputs.items() if o.objective != "throughput"])
    groups = _task_groups(graph, paths)
    sizes = Counter(groups.values())

    def deduction(call: SemanticCall) -> Deduction:
        needed = call.output in critical
        path, group = paths[call.output], groups.get(call.id)
        if group is not None:
            return Deduction("throughput", needed, path, group, sizes[group])
        output = outputs.get(call.output)
        if output is not None and output.objective != "throughput":
            return Deduction(output.objective, needed, path)
        return Deduction("latency" if needed else "throughput", needed, path)

    return {call.id: deduction(call) for call in graph.calls.values()}


def rewritten(graph: Graph, call: SemanticCall) -> SemanticCall | None:
    """The call whose answer this one is likely to repeat: the only one whose answer it reads.

    Each step of a refine chain hands on the answer before, as does a call that corrects or continues
    another's. Of several answers, which are being combined, none is repeated.
    """
    made_of = _upstream(graph, graph.inputs[call.output], past_calls=False)
    answered = [node for name in made_of if isinstance(node := graph.producers[name], SemanticCall)]
    return answered[0] if len(answered) == 1 else None


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


def _upstream(graph: Graph, variables: list[str], *, past_calls: bool = True) -> set[str]:
    """What variables are made from, themselves included; without `past_calls`, up to calls."""
    found: set[str] = set()
    stack = list(variables)
    while stack:
        name = stack.pop()
        if name in found:
            continue
        found.add(name)
        producer: Node | None = graph.producers[name]
        if producer is not None and (past_calls or not isinstance(producer, SemanticCall)):
            stack += graph.inputs[name]
    return found


_Stage = tuple[str, int]  # what a group feeds, and how many calls before it


def _task_groups(graph: Graph, paths: dict[str, int]) -> dict[str, str]:
    """Names of task groups by call id; a call without siblings has none."""
    stages: dict[str, _Stage] = {}
    nearest_first = sorted(graph.calls.values(), key=lambda call: paths[call.output])
    for _, calls in groupby(nearest_first, key=lambda call: paths[call.output]):
        siblings: defaultdict[_Stage, list[str]] = defaultdict(list)
        for call in calls:
            if (stage := _stage(graph, call.output, paths, stages)) is not None:
                siblings[stage].append(call.id)
        for stage, members in siblings.items():
            if len(members) > 1:
                stages.update(dict.fromkeys(members, stage))
    return {call_id: _name(*stage) for call_id, stage in stages.items()}


def _stage(
    graph: Graph, variable: str, paths: dict[str, int], stages: dict[str, _Stage]
) -> _Stage | None:
    """What a variable is for: the consumer with the longest way to go, through transforms."""
    while consumers := graph.consumers.get(variable):
        node = max(consumers, key=lambda consumer: paths[consumer.output])
        if isinstance(node, SemanticCall):
            feeds, distance = stages.get(node.id, (node.id, 0))
            return feeds, distance + 1
        variable = node.output
    output = graph.outputs.get(variable)
    return (output.group, 0) if output is not None and output.group is not None else None


def _name(feeds: str, distance: int) -> str:
    if distance == 0:
        return feeds
    return f"{feeds}.inputs" if distance == 1 else f"{feeds}.inputs.{distance}"
