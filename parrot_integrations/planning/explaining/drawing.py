"""A plan as nodes and edges, to be drawn: what is alike is one node."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from parrot_backend.program.graph import inputs_of
from parrot_backend.wire.protocol import SemanticCall
from parrot_backend.wire.views import CallView
from parrot_integrations.planning.explaining.explain import name_of, named
from parrot_integrations.planning.explaining.marking import counted, length, short
from parrot_integrations.planning.explaining.overview import Alike, Overview

Kind = Literal["input", "transform", "call", "break"]

_WIDTH = 48


@dataclass(frozen=True, slots=True)
class Drawn:
    """A node; its lines are texts as they are, for each form to escape."""

    id: str
    kind: Kind
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drawing:
    """Nodes, edges between their ids, and which nodes begin alike: two ids and what they share."""

    nodes: Sequence[Drawn]
    edges: Sequence[tuple[str, str]]
    shared: Sequence[tuple[str, str, str]]


def drawing(seen: Overview) -> Drawing:
    """The nodes and edges of a plan, with what came of its calls where it ran."""
    nodes: list[Drawn] = []
    writer: dict[str, str] = {}
    reads: list[tuple[str, list[str]]] = []

    def add(kind: Kind, lines: Sequence[str], writes: Sequence[str], read: Sequence[str]) -> None:
        node = Drawn(f"n{len(nodes) + 1}", kind, tuple(lines))
        nodes.append(node)
        writer.update(dict.fromkeys(writes, node.id))
        reads.append((node.id, [*read]))

    for values in seen.variables():
        names = [name for name, _ in values.members]
        add("input", [_value(values)], names, ())
    for transforms in seen.transforms():
        add(
            "transform", [_times(transforms, transforms.members[0].description)], *_ends(transforms)
        )
    views = {view.id: view for view in seen.ran.calls} if seen.ran is not None else {}
    for calls in seen.calls():
        add("call", list(_call(seen, calls, views)), *_ends(calls))
    for stops in seen.stops():
        stop = stops.members[0]
        lines = [named(stop), stop.step, stop.reason]
        read = [name for each in stops.members for name in each.reads]
        written = [each.output for each in stops.members]
        add("break", [line for line in lines if line], written, read)
    edges = [(writer[name], node) for node, names in reads for name in names if name in writer]
    distinct = [edge for edge in dict.fromkeys(edges) if edge[0] != edge[1]]
    return Drawing(nodes, distinct, list(_shared(seen, writer)))


def _ends(alike: Alike[Any]) -> tuple[list[str], list[str]]:
    """What nodes of a program write and read."""
    written = [node.output for node in alike.members]
    return written, [name for node in alike.members for name in inputs_of(node)]


def _value(values: Alike[tuple[str, str]]) -> str:
    name, value = values.members[0]
    if len(values.members) > 1:
        return f"{values.label} ({len(values.members)} values)"
    return short(f"{name} = {value}", _WIDTH)


def _times(alike: Alike[Any], what: str) -> str:
    return f"{what} ({len(alike.members)} times)" if len(alike.members) > 1 else what


def _call(
    seen: Overview, calls: Alike[SemanticCall], views: Mapping[str, CallView]
) -> Iterator[str]:
    deduction = seen.deduced[calls.members[0].id]
    yield f"{name_of(calls)}: {deduction.objective}"
    yield short(calls.label, _WIDTH)
    if deduction.group is not None and deduction.group_size is not None:
        yield f"task group of {counted(deduction.group_size, 'call')}"
    own = {call.output for call in calls.members}
    if any(name in own for call in calls.members for name in inputs_of(call)):
        yield "they read one another"
    ran = [views[call.id] for call in calls.members if call.id in views]
    if ran:
        states = ", ".join(dict.fromkeys(view.state for view in ran))
        cached = sum(view.cached_tokens for view in ran)
        yield f"{states}, {cached} of {counted(sum(v.prompt_tokens for v in ran), 'token')} shared"


def _shared(seen: Overview, writer: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    outputs = {call.id: call.output for call in seen.plan.calls}
    most: dict[tuple[str, str], int] = {}
    for call_id, share in seen.shared.items():
        ends = writer[outputs[share.call_id]], writer[outputs[call_id]]
        most[ends] = max(most.get(ends, 0), length(share.prefix, {}))
    for (one, other), characters in most.items():
        if one != other:
            yield one, other, counted(characters, "character")
