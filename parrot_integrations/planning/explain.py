"""A plan in words: its calls, what they share, what is deduced of them, and where planning stopped."""

from collections.abc import Iterator, Mapping

from parrot_backend.program.analysis import Deduction, deduce
from parrot_backend.program.graph import Graph
from parrot_backend.wire.protocol import Objective
from parrot_backend.wire.transforms import Transform
from parrot_backend.wire.views import GraphView
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.sharing import (
    Share,
    counted,
    families,
    length,
    marked,
    shares,
    short,
    text,
    with_markers,
)


def deductions(
    plan: Plan, objective: Objective, ran: GraphView | None = None
) -> dict[str, Deduction]:
    """What the backend will deduce of each planned call, by its id; what it did, where it ran."""
    graph = Graph()
    graph.add(plan.program(objective))
    return deduce(graph, objective) | (_deduced_at_the_backend(ran) if ran is not None else {})


def _deduced_at_the_backend(ran: GraphView) -> dict[str, Deduction]:
    sizes = {group.name: group.size or len(group.calls) for group in ran.groups}
    return {
        view.id: Deduction(
            objective=view.objective,
            critical=view.objective != "throughput",
            path=view.path,
            group=view.group if view.group in sizes else None,
            group_size=sizes.get(view.group or ""),
        )
        for view in ran.calls
    }


def explain(plan: Plan, objective: Objective = "latency", ran: GraphView | None = None) -> str:
    """The plan as text for a terminal.

    Args:
        plan: what is told.
        objective: what is wanted of its outputs.
        ran: the session's calls, where it ran.
    """
    lines = [
        f"{counted(len(plan.calls), 'planned call')}, "
        f"{counted(len(plan.variables), 'input variable')}, "
        f"{counted(len(plan.transforms), 'transform')}, "
        f"{counted(len(plan.breaks), 'graph break')}"
    ]
    for heading, section in (
        ("Calls", _calls(plan, deductions(plan, objective, ran))),
        ("Transforms", map(_transform, plan.transforms)),
        ("Variables", (f"{name} = {short(value)}" for name, value in plan.variables.items())),
        ("Shared prefixes", _shared(plan)),
        ("Graph breaks", _breaks(plan)),
    ):
        if rows := list(section):
            lines += ["", heading, *(f"  {row}" for row in rows)]
    return "\n".join(lines)


def _calls(plan: Plan, deduced: Mapping[str, Deduction]) -> Iterator[str]:
    shared = shares(plan.calls)
    unread = "nothing planned reads it" if plan.breaks else "the last call"
    for call in plan.calls:
        yield f"{call.id}: {short(with_markers(marked(call)))} -> {{{call.output}}}"
        details = [_deduced(deduced[call.id], unread), *_share(shared.get(call.id))]
        yield f"    {', '.join(details)}"


def _deduced(deduction: Deduction, unread: str) -> str:
    steps = f"{deduction.path} calls to the end" if deduction.path > 1 else unread
    if deduction.group is None or deduction.group_size is None:
        return f"{deduction.objective}, {steps}"
    group = f"task group {deduction.group} ({counted(deduction.group_size, 'call')})"
    return f"{deduction.objective}, {steps}, {group}"


def _share(share: Share | None) -> list[str]:
    if share is None:
        return []
    return [f"shares {counted(length(share.prefix, {}), 'character')} with {share.call_id}"]


def _transform(transform: Transform) -> str:
    inputs = ", ".join(text(segments) for segments in transform.inputs)
    return f"{transform.description}: {short(inputs)} -> {{{transform.output}}}"


def _shared(plan: Plan) -> Iterator[str]:
    for members, prefix in families(plan.calls):
        names = f"{members[0].id} … {members[-1].id}"
        yield f"{len(members)} calls ({names}): {short(with_markers(prefix))}"


def _breaks(plan: Plan) -> Iterator[str]:
    for stop in plan.breaks:
        remedy = f" {stop.remedy}" if stop.remedy else ""
        yield f"{stop.where}: {stop.reason}.{remedy}"
