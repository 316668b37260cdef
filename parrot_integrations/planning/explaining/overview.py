"""A plan in few words: what is alike in it stands together, however many elements it has."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from parrot_backend.program.analysis import Deduction, deduce
from parrot_backend.program.graph import Graph
from parrot_backend.wire.protocol import Objective, Program, SemanticCall
from parrot_backend.wire.transforms import Transform
from parrot_backend.wire.views import GraphView
from parrot_integrations.planning.explaining.marking import (
    family,
    in_common,
    marked,
    marked_text,
    shape,
    together,
    with_markers,
)
from parrot_integrations.planning.explaining.sharing import Share, shares
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.values import Break

T = TypeVar("T")

_SINGLE_VALUES = 3
_OWN: Any = {"id": True, "output": True, "concurrency": True, "messages": {"__all__": {"content"}}}


@dataclass(frozen=True, slots=True)
class Alike(Generic[T]):
    """Members that a reader needn't tell apart, in order, and what is said of all of them."""

    members: list[T]
    label: str
    output: str = ""


@dataclass(frozen=True, slots=True)
class Overview:
    """A plan with what is deduced of it, its parts put together where they are alike."""

    plan: Plan
    objective: Objective
    deduced: Mapping[str, Deduction]
    shared: Mapping[str, Share]
    concurrency: Mapping[str, int]
    breaks: Sequence[Break]
    ran: GraphView | None = None

    def calls(self) -> list[Alike[SemanticCall]]:
        """Calls that are equal but for their variables, and serve the same end."""
        groups = _alike(self.plan.calls, self._call_key)
        return [
            Alike(
                calls,
                with_markers(in_common([marked(call) for call in calls])),
                together([call.output for call in calls]),
            )
            for calls in groups
        ]

    def _call_key(self, call: SemanticCall) -> Hashable:
        deduction = self.deduced[call.id]
        in_group = deduction.group is not None, deduction.group_size
        limits = tuple(self.concurrency.get(name) for name in call.concurrency)
        rest = call.model_dump_json(exclude=_OWN)
        return shape(marked(call)), rest, deduction.objective, in_group, limits

    def transforms(self) -> list[Alike[Transform]]:
        """Transforms that do the same to texts that are equal but for their variables."""
        groups = _alike(
            self.plan.transforms, lambda t: (t.description, tuple(map(shape, _inputs(t))))
        )
        return [
            Alike(
                transforms,
                ", ".join(
                    with_markers(in_common(texts))
                    for texts in zip(*map(_inputs, transforms), strict=True)
                ),
                together([transform.output for transform in transforms]),
            )
            for transforms in groups
        ]

    def variables(self) -> list[Alike[tuple[str, str]]]:
        """Inputs of one name; only many of them are put together, for their values differ."""
        groups = _alike(self.plan.variables.items(), lambda item: family(item[0]))
        parts = [[m] for members in groups if len(members) <= _SINGLE_VALUES for m in members]
        parts += [members for members in groups if len(members) > _SINGLE_VALUES]
        return [Alike(members, together([name for name, _ in members])) for members in parts]

    def stops(self) -> list[Alike[Break]]:
        """Breaks at one step for one reason, such as those of a map's elements."""
        same = _alike(self.breaks, lambda b: (b.step, b.where, b.location, b.reason, b.remedy))
        return [Alike(breaks, breaks[0].where) for breaks in same]


def overview(
    plan: Plan, objective: Objective = "latency", ran: GraphView | None = None
) -> Overview:
    """Look a plan over.

    Args:
        plan: what is told.
        objective: what is wanted of its outputs.
        ran: the session's calls, where it ran.
    """
    program, graph = _as_submitted(plan, objective), Graph()
    graph.add(program)
    deduced = deduce(graph, objective) | (_deduced_at_the_backend(ran) if ran is not None else {})
    return Overview(
        plan, objective, deduced, shares(plan.calls), program.concurrency, plan.breaks, ran
    )


def _as_submitted(plan: Plan, objective: Objective) -> Program:
    """All of a plan, in which a call that was held back has no siblings: it was planned alone.

    What was planned behind its answer stands in the same plan by now, and is submitted without it.
    """
    program = plan.program(objective)
    held = {call.output for call in plan.calls if call.id in plan.held}
    together = [each for each in program.outputs if each.variable not in held]
    group = together[0].group if len(together) > 1 else None
    outputs = [
        each.model_copy(update={"group": None if each.variable in held else group})
        for each in program.outputs
    ]
    return program.model_copy(update={"outputs": outputs})


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


def _alike(items: Iterable[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def _inputs(transform: Transform) -> list[str]:
    return [marked_text(segments) for segments in transform.inputs]
