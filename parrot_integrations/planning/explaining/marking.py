"""Prompts as strings with their variables and roles marked, to be compared and to be read."""

import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest

from parrot_backend.program.render import render_text
from parrot_backend.wire.messages import Text, VariableSegment
from parrot_backend.wire.protocol import SemanticCall

# Around the names of variables and of roles, where a brace or bracket could be the template's own.
VARIABLE, ROLE = "\0", "\1"
_MARK = re.compile(f"({VARIABLE}|{ROLE})(.*?)\\1")
_NUMBER = re.compile(r"(?:\.|(?<=-))\d+$")
_WIDTH = 72


def marked(call: SemanticCall) -> str:
    """A call's prompt as one string, variables and roles marked; `with_markers` makes it readable."""
    tools = ", ".join(tool.function.name for tool in call.tools or ())
    parts = [f"{ROLE}tools{ROLE}{tools}"] if tools else []
    parts += [f"{ROLE}{m.role}{ROLE}{marked_text(m.content)}" for m in call.messages]
    return "".join(parts)


def marked_text(segments: Text) -> str:
    """A text with its variables marked."""
    names = (segment.name for segment in segments if isinstance(segment, VariableSegment))
    return render_text(segments, {name: f"{VARIABLE}{name}{VARIABLE}" for name in names})


def with_markers(prompt: str) -> str:
    """A marked prompt for a reader: `[role] text with {variables}`."""
    return _MARK.sub(lambda m: f"{{{m[2]}}}" if m[1] == VARIABLE else f" [{m[2]}] ", prompt).strip()


def length(prompt: str, values: Mapping[str, str]) -> int:
    """Characters of a marked prompt; of a variable without a value, those of its name in braces."""
    texts, names = _parts(prompt)
    roles = "".join(texts).split(ROLE)[1::2]
    marks = sum(len(role) + 2 for role in roles)
    filled = sum(len(values[name]) if name in values else len(name) + 2 for name in names)
    return sum(map(len, texts)) - marks + filled


def shape(prompt: str) -> str:
    """A marked prompt without the numbers of its variables: equal for prompts that are alike."""
    texts, names = _parts(prompt)
    return _whole(texts, [family(name) for name in names])


def family(name: str) -> str:
    """A variable's name without its number: `text` of `text.2`, `answer-` of `answer-7`."""
    return _NUMBER.sub("", name)


def in_common(prompts: Sequence[str]) -> str:
    """Marked prompts of one shape as one: a variable that is not the same in all is `name.*`."""
    texts, _ = _parts(prompts[0])
    names = zip(*(_parts(prompt)[1] for prompt in prompts), strict=True)
    return _whole(texts, [together(same) for same in names])


def together(names: Sequence[str]) -> str:
    """One name for variables of a family: their own, where it is the same, else `name.*`."""
    if len(set(names)) == 1:
        return names[0]
    base = family(names[0])
    return f"{base}*" if base.endswith("-") else f"{base}.*"


def _parts(prompt: str) -> tuple[list[str], list[str]]:
    """The texts between a prompt's variables, and the names of these. No regex: prompts are long."""
    parts = prompt.split(VARIABLE)
    return parts[::2], parts[1::2]


def _whole(texts: Sequence[str], names: Sequence[str]) -> str:
    pairs = zip_longest(texts, (f"{VARIABLE}{name}{VARIABLE}" for name in names), fillvalue="")
    return "".join(text + name for text, name in pairs)


def short(line: str, width: int = _WIDTH) -> str:
    """One line; the middle of a long text is left out, for prompts differ at both ends."""
    line = " ".join(line.split())
    half = width // 2
    return line if len(line) <= width else f"{line[:half]} … {line[-half:]}"


def counted(number: int, noun: str) -> str:
    """`1 call`, `2 calls`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def span(names: Sequence[str]) -> str:
    """Names in a row: all of two, of more the first and the last."""
    return ", ".join(names) if len(names) < 3 else f"{names[0]} … {names[-1]}"
