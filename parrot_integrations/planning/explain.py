"""A plan in words: its calls with variables marked, what they share, and where planning stopped."""

from collections import defaultdict
from collections.abc import Iterator

from parrot_backend.protocol import SemanticCall, Text, TextSegment, Transform
from parrot_integrations.planning.plan import Plan

_WIDTH = 72
_EDGE = "\0"  # around a variable's name, where a brace could be the template's own


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


def _marked(text: Text, left: str = "{", right: str = "}") -> str:
    return "".join(s.text if isinstance(s, TextSegment) else f"{left}{s.name}{right}" for s in text)


def _short(text: str) -> str:
    """One line; the middle of a long text is left out, for prompts differ at both ends."""
    line = " ".join(text.split())
    half = _WIDTH // 2
    return line if len(line) <= _WIDTH else f"{line[:half]} … {line[-half:]}"


def _shared(plan: Plan) -> Iterator[str]:
    """Prefixes that calls which start alike have in common, template text and variables alike."""
    groups: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for call in plan.calls:
        marked = "".join(f"[{m.role}] {_marked(m.content, _EDGE, _EDGE)} " for m in call.messages)
        groups[marked.partition(_EDGE)[0]].append((call.id, marked))
    for members in groups.values():
        if len(members) > 1:
            prefix = _common_prefix([marked for _, marked in members])
            names = f"{members[0][0]} … {members[-1][0]}"
            yield f"{len(members)} calls ({names}): {_short(prefix)}"


def _common_prefix(texts: list[str]) -> str:
    """Up to the first difference; a variable is shared whole or not at all."""
    first, last = min(texts), max(texts)
    differs = (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    pieces = first[: next(differs, len(first))].split(_EDGE)
    whole = pieces if len(pieces) % 2 else pieces[:-1]
    return "".join(p if i % 2 == 0 else f"{{{p}}}" for i, p in enumerate(whole))


def _breaks(plan: Plan) -> Iterator[str]:
    for stop in plan.breaks:
        remedy = f" {stop.remedy}" if stop.remedy else ""
        yield f"{stop.where}: {stop.reason}.{remedy}"
