"""Templates filled symbolically: f-strings, and what of mustache leaves a text as it is."""

from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from string import Formatter
from typing import Any

from langchain_core.utils import mustache

from parrot_integrations.langchain.compiling.rules.plain import is_plain
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.structured import JsonValue
from parrot_integrations.planning.values import (
    Answer,
    BreakError,
    Text,
    concat,
    is_symbolic,
    need,
)


def fill(plan: Plan, template: str, template_format: str, fields: Mapping[str, Any]) -> Text:
    """The template's pieces in order, with a variable for each field that is known.

    Raises:
        BreakError: it does more with a field than to put its text in.
        NotYetError: a field's value is not known yet.
    """
    if (pieces := _FORMATS.get(template_format)) is None:
        raise BreakError(
            f"is a {template_format} template, whose logic planning does not run",
            "An f-string or mustache template of plain fields is planned.",
        )
    return concat(pieces(plan, template, fields))


def literal(text: Text) -> str:
    """The string that a text is, where no part of it is a variable.

    Raises:
        BreakError: a part of it is.
    """
    if not all(isinstance(piece, str) for piece in text.pieces):
        raise BreakError("has a variable where a fixed text has to be")
    return "".join(str(piece) for piece in text.pieces)


def field_text(plan: Plan, name: str, value: Any) -> Text:
    """What a plain field `{name}` becomes.

    Raises:
        BreakError: the value is no text, and making one of it could run code of the user's.
        NotYetError: it is not known yet.
    """
    if isinstance(value, JsonValue) and not value.settled:
        return value.as_text(plan)
    if isinstance(value, Text):
        return value
    if isinstance(value, Answer):
        raise BreakError(
            f"puts a whole message, with its metadata, into '{name}'",
            "Put StrOutputParser() behind the model.",
        )
    if is_symbolic(need(value)):
        raise BreakError(
            f"puts a list or dict of answers into '{name}'",
            "Put join_texts(separator) before it.",
        )
    return plan.input(name, format(_plain(name, value)))


def _plain(name: str, value: Any) -> Any:
    if not is_plain(value):
        raise BreakError(f"'{name}' is a {type(value).__name__}, not a text")
    return value


def _f_string(plan: Plan, template: str, fields: Mapping[str, Any]) -> Iterator[Text]:
    for text, name, spec, conversion in Formatter().parse(template):
        yield Text((text,))
        if name is None:
            continue
        value = _field(name, fields)
        if spec or conversion:
            yield plan.input(name, _formatted(name, value, spec or "", conversion))
        else:
            yield field_text(plan, name, value)


def _formatted(name: str, value: Any, spec: str, conversion: str | None) -> str:
    if is_symbolic(need(value)):
        raise BreakError(f"formats '{name}' with a specification")
    if conversion in ("r", "a") and isinstance(value, Enum):
        raise BreakError(f"takes the representation of '{name}', a {type(value).__name__}")
    try:
        return format(Formatter().convert_field(_plain(name, value), conversion), spec)
    except ValueError as error:
        raise BreakError(f"can't format '{name}': {error}") from None


def _mustache(plan: Plan, template: str, fields: Mapping[str, Any]) -> Iterator[Text]:
    for kind, name in mustache.tokenize(template):
        if kind == "literal":
            yield Text((name,))
        elif kind == "no escape" and "." not in name:
            yield field_text(plan, name, _mustache_text(name, fields))
        elif kind == "variable" and "." not in name:
            yield plan.input(name, _escaped(name, _mustache_text(name, fields)))
        else:
            raise BreakError(f"has a mustache {kind} '{name}'")


def _mustache_text(name: str, fields: Mapping[str, Any]) -> Any:
    """Mustache has its own idea of what is false; of texts it changes nothing."""
    value = need(_field(name, fields))
    if type(value) is not str and not isinstance(value, Text | Answer):
        raise BreakError(f"'{name}' is a {type(value).__name__}, not a text")
    return value


def _escaped(name: str, value: Any) -> str:
    if type(value) is not str:
        raise BreakError(f"escapes '{name}' for HTML", f"Write {{{{{{{name}}}}}}} instead.")
    return mustache.render("{{x}}", {"x": value})


def _field(name: str, fields: Mapping[str, Any]) -> Any:
    if name not in fields:
        raise BreakError(f"misses the input {name}")
    return fields[name]


_FORMATS: dict[str, Callable[[Plan, str, Mapping[str, Any]], Iterator[Text]]] = {
    "f-string": _f_string,
    "mustache": _mustache,
}
