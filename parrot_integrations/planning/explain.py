"""A plan in words: its calls with variables marked, what they share, and where planning stopped."""

from collections import defaultdict
from collections.abc import Iterator

from parrot_backend.protocol import SemanticCall, Text, TextSegment, Transform
from parrot_integrations.planning.plan import Plan

_WIDTH = 72


def explain(plan: Plan) -> str:
    """The plan as text for a terminal."""
    lines = [
        f"{len(plan.calls)} planned calls, {len(plan.variables)} input variables, "
        f"{len(plan.transforms)} transforms, {len(plan.breaks)} graph breaks"
    ]
    for heading, section in (
        ("Calls", map(_call, plan.calls)),
        ("Transforms", map(_transform, plan.transforms)),
        ("Variables", (f"{name} = {_short(value)}" for name, value in plan.variables.items())),
        ("Shared prefixes", _shared(plan)),
        ("Graph breaks", _breaks(plan)),
    ):
        if rows := list(section):
            lines += ["", heading, *(f"  {row}" for row in rows)]
    return "\n".join(lines)


def _call(call: SemanticCall) -> str:
    prompt = " ".join(f"[{m.role}] {_marked(m.content)}" for m in call.messages)
    return f"{call.id}: {_short(prompt)} -> {{{call.output}}}"


def _transform(transform: Transform) -> str:
    inputs = ", ".join(_marked(text) for text in transform.inputs)
    return f"join by {transform.separator!r}: {_short(inputs)} -> {{{transform.output}}}"


def _marked(text: Text) -> str:
    return "".join(s.text if isinstance(s, TextSegment) else f"{{{s.name}}}" for s in text)


def _short(text: str) -> str:
    """One line; the middle of a long text is left out, for prompts differ at both ends."""
    line = " ".join(text.split())
    half = _WIDTH // 2
    return line if len(line) <= _WIDTH else f"{line[:half]} … {line[-half:]}"


def _shared(plan: Plan) -> Iterator[str]:
    """Prefixes that several calls have in common, template text and variables alike."""
    groups: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for call in plan.calls:
        flat = "".join(f"[{m.role}] {_marked(m.content)}" for m in call.messages)
        groups[flat[:24]].append((call.id, flat))
    for members in groups.values():
        prefix = _common_prefix([flat for _, flat in members])
        if len(members) > 1:
            names = f"{members[0][0]} … {members[-1][0]}"
            yield f"{len(members)} calls ({names}): {_short(prefix)} ({len(prefix)} characters)"


def _common_prefix(texts: list[str]) -> str:
    first, last = min(texts), max(texts)
    differs = (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return first[: next(differs, len(first))]


def _breaks(plan: Plan) -> Iterator[str]:
    for stop in plan.breaks:
        remedy = f" {stop.remedy}" if stop.remedy else ""
        yield f"{stop.where}: {stop.reason}.{remedy}"
