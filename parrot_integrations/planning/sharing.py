"""What planned calls have in common: the longest prefix of each that an earlier one begins with."""

import re
from bisect import bisect
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from parrot_backend.program.render import render_text
from parrot_backend.wire.messages import Text, VariableSegment
from parrot_backend.wire.protocol import SemanticCall

# Around the names of variables and of roles, where a brace or bracket could be the template's own.
_VARIABLE, _ROLE = "\0", "\1"
_MARK = re.compile(f"({_VARIABLE}|{_ROLE})(.*?)\\1")
_WIDTH = 72


@dataclass(frozen=True, slots=True)
class Share:
    """`prefix`, marked, is common with the earlier call `call_id`: literal text and variables alike."""

    call_id: str
    prefix: str


def marked(call: SemanticCall) -> str:
    """A call's prompt as one string, variables and roles marked; `with_markers` makes it readable."""
    tools = ", ".join(tool.function.name for tool in call.tools or ())
    parts = [f"{_ROLE}tools{_ROLE}{tools}"] if tools else []
    parts += [f"{_ROLE}{m.role}{_ROLE}{_marked(m.content)}" for m in call.messages]
    return "".join(parts)


def with_markers(prompt: str) -> str:
    """A marked prompt for a reader: `[role] text with {variables}`."""
    return _MARK.sub(
        lambda m: f"{{{m[2]}}}" if m[1] == _VARIABLE else f" [{m[2]}] ", prompt
    ).strip()


def length(prompt: str, values: Mapping[str, str]) -> int:
    """Characters of a marked prompt; of a variable without a value, those of its name in braces."""
    return len(
        _MARK.sub(lambda m: values.get(m[2], f"{{{m[2]}}}") if m[1] == _VARIABLE else "", prompt)
    )


def text(segments: Text) -> str:
    """A transform's text for a reader."""
    return with_markers(_marked(segments))


def short(line: str, width: int = _WIDTH) -> str:
    """One line; the middle of a long text is left out, for prompts differ at both ends."""
    line = " ".join(line.split())
    half = width // 2
    return line if len(line) <= width else f"{line[:half]} … {line[-half:]}"


def counted(number: int, noun: str) -> str:
    """`1 call`, `2 calls`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def shares(calls: Sequence[SemanticCall]) -> dict[str, Share]:
    """By call id, the longest prefix that an earlier call has too; none for who shares nothing."""
    found: dict[str, Share] = {}
    before: list[tuple[str, str]] = []
    for call in calls:
        own = marked(call)
        place = bisect(before, (own, call.id))
        # Sorted, the texts that have most in common with a text are its neighbours.
        neighbours = before[max(0, place - 1) : place + 1]
        options = [Share(other, common_prefix(own, theirs)) for theirs, other in neighbours]
        best = max(options, key=lambda share: length(share.prefix, {}), default=None)
        if best is not None and length(best.prefix, {}):
            found[call.id] = best
        before.insert(place, (own, call.id))
    return found


def families(calls: Sequence[SemanticCall]) -> list[tuple[list[SemanticCall], str]]:
    """Calls that begin with the same literal text, and the marked prefix that all of them have."""
    alike: defaultdict[str, list[SemanticCall]] = defaultdict(list)
    for call in calls:
        alike[marked(call).partition(_VARIABLE)[0]].append(call)
    several = [members for members in alike.values() if len(members) > 1]
    return [(members, reduce(common_prefix, map(marked, members))) for members in several]


def common_prefix(one: str, other: str) -> str:
    """What two marked prompts begin with; a variable is shared whole or not at all."""
    differs = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    common = one[: next(differs, min(len(one), len(other)))]
    for mark in (_VARIABLE, _ROLE):
        if common.count(mark) % 2:
            common = common[: common.rindex(mark)]
    return common


def _marked(segments: Text) -> str:
    names = (segment.name for segment in segments if isinstance(segment, VariableSegment))
    return render_text(segments, {name: f"{_VARIABLE}{name}{_VARIABLE}" for name in names})
