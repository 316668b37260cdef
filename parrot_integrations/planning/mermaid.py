"""A plan as a Mermaid flowchart: inputs, calls in their task groups, joins and graph breaks."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from parrot_backend.program.analysis import Deduction
from parrot_backend.program.graph import Node, inputs_of
from parrot_backend.wire.protocol import Objective, SemanticCall
from parrot_backend.wire.views import CallView, GraphView
from parrot_integrations.planning.explain import deductions
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.sharing import (
    counted,
    length,
    marked,
    shares,
    short,
    with_markers,
)

_WIDTH = 48


def mermaid(plan: Plan, objective: Objective = "latency", ran: GraphView | None = None) -> str:
    """The plan as a flowchart; a dotted line goes to an earlier call that shares a prefix.

    Args:
        plan: what is to be drawn.
        objective: what is wanted of its outputs.
        ran: the session's calls, where it ran: what came of them is told too.
    """
    ids = _Ids()
    nodes = _nodes(plan, deductions(plan, objective, ran), ran, ids)
    return "\n".join(["flowchart TD", *nodes, *_edges(plan, ids), *_breaks(plan, ids)])


class _Ids:
    """Short ids: Mermaid takes few characters in them."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        return self._ids.setdefault(name, f"n{len(self._ids) + 1}")


def _nodes(
    plan: Plan,
    deduced: Mapping[str, Deduction],
    ran: GraphView | None,
    ids: Callable[[str], str],
) -> Iterator[str]:
    for name, value in plan.variables.items():
        yield f'  {ids(name)}(["{_quoted(f"{name} = {short(value, _WIDTH)}")}"])'
    for transform in plan.transforms:
        yield f'  {ids(transform.output)}[/"{_quoted(transform.description)}"/]'
    views = {view.id: view for view in ran.calls} if ran is not None else {}
    groups: defaultdict[str | None, list[SemanticCall]] = defaultdict(list)
    for call in plan.calls:
        groups[deduced[call.id].group].append(call)
    for group, calls in groups.items():
        nodes = [_node(call, deduced[call.id], views.get(call.id), ids) for call in calls]
        if group is not None:
            name = _quoted(f"task group {group}")
            nodes = [f'  subgraph {ids(f"group {group}")}["{name}"]', *nodes, "  end"]
        yield from nodes


def _node(
    call: SemanticCall, deduction: Deduction, view: CallView | None, ids: Callable[[str], str]
) -> str:
    rows = [f"{call.id}: {deduction.objective}", short(with_markers(marked(call)), _WIDTH)]
    if view is not None:
        rows.append(
            f"{view.state}, {view.cached_tokens} of {counted(view.prompt_tokens, 'token')} shared"
        )
    return f'  {ids(call.output)}["{"<br/>".join(map(_quoted, rows))}"]'


def _edges(plan: Plan, ids: Callable[[str], str]) -> Iterator[str]:
    nodes: list[Node] = [*plan.transforms, *plan.calls]
    for node in nodes:
        for name in inputs_of(node):
            yield f"  {ids(name)} --> {ids(node.output)}"
    outputs = {call.id: call.output for call in plan.calls}
    for call_id, share in shares(plan.calls).items():
        characters = counted(length(share.prefix, {}), "character")
        yield f"  {ids(outputs[share.call_id])} -. {characters} .- {ids(outputs[call_id])}"


def _breaks(plan: Plan, ids: Callable[[str], str]) -> Iterator[str]:
    for number, stop in enumerate(plan.breaks):
        label = _quoted(f"{stop.where}: {stop.reason}. {stop.remedy}")
        yield f'  {ids(f"break {number}")}{{{{"{label}"}}}}'


def _quoted(label: str) -> str:
    """A label inside quotes; what Mermaid or HTML would read is written as an entity."""
    label = label.replace("#", "#35;").replace('"', "#quot;")
    return " ".join(label.replace("<", "#lt;").replace(">", "#gt;").split())
