"""Methods of `str`: Python's own on strings that are known, transforms on texts that the run brings."""

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from string import Formatter
from typing import Any

from parrot_integrations.planning import transforms
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.reading.kinds import (
    SplitText,
    as_known,
    as_text,
    is_plain,
    is_text,
    items_of,
    joined,
    named,
    need,
    settled,
    wanted,
)
from parrot_integrations.planning.reading.operations import applied
from parrot_integrations.planning.reading.problems import NEEDS_THE_TEXT, UnreadableError
from parrot_integrations.planning.transforms import Step
from parrot_integrations.planning.values import Text

_WIDEST = 10_000
_MOST_JOINED = 10_000  # inputs that a transform may have

_PURE = frozenset(
    {
        "capitalize",
        "casefold",
        "center",
        "count",
        "endswith",
        "expandtabs",
        "find",
        "index",
        "isalnum",
        "isalpha",
        "isascii",
        "isdecimal",
        "isdigit",
        "isidentifier",
        "islower",
        "isnumeric",
        "isprintable",
        "isspace",
        "istitle",
        "isupper",
        "ljust",
        "lower",
        "lstrip",
        "partition",
        "removeprefix",
        "removesuffix",
        "replace",
        "rfind",
        "rindex",
        "rjust",
        "rpartition",
        "rsplit",
        "rstrip",
        "split",
        "splitlines",
        "startswith",
        "strip",
        "swapcase",
        "title",
        "upper",
        "zfill",
    }
)
_WIDENING = {"center", "ljust", "rjust", "zfill", "expandtabs"}
_TRANSFORMS: dict[str, Callable[..., Step]] = {
    "strip": transforms.strip,
    "lstrip": transforms.lstrip,
    "rstrip": transforms.rstrip,
    "lower": transforms.lower,
    "upper": transforms.upper,
    "replace": transforms.replace,
    "removeprefix": transforms.removeprefix,
    "removesuffix": transforms.removesuffix,
}
_BY_KEYWORD = {"sep": "separator", "maxsplit": "maxsplit", "count": "count"}


def text_method(
    plan: Plan, text: str | Text, name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> Any:
    """What `text.name(*arguments, **keywords)` gives.

    Raises:
        UnreadableError: it needs a text that only the run brings, or raises.
    """
    if name == "join" and len(arguments) == 1 and not keywords:
        items = items_of(settled(arguments[0]))
        return _join(plan, text, [need(wanted(plan, item)) for item in items])
    arguments = [need(wanted(plan, argument)) for argument in arguments]
    keywords = {key: need(wanted(plan, value)) for key, value in keywords.items()}
    if name == "format" and type(text) is str:
        return _format(text, arguments, keywords)
    given = [*arguments, *keywords.values()]
    if type(text) is str and all(map(is_plain, given)):
        return _known(text, name, arguments, keywords)
    if name == "replace" and type(text) is str and len(arguments) in (2, 3) and not keywords:
        return _replaced(text, *arguments)
    if isinstance(text, Text) and all(map(is_plain, given)):
        return _planned(plan, text, name, arguments, keywords)
    raise UnreadableError(NEEDS_THE_TEXT)


def _known(text: str, name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    if name not in _PURE:
        raise UnreadableError(f"calls `{name}` of a string")
    if name in _WIDENING and any(type(n) is int and n > _WIDEST for n in arguments):
        raise UnreadableError("makes something very large")
    return applied(getattr(str, name), text, *arguments, **keywords)


def _planned(
    plan: Plan, text: Text, name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> Any:
    # The types of the arguments are checked by the method itself, on a string that is there.
    if name != "split" and name not in _TRANSFORMS:
        raise UnreadableError(NEEDS_THE_TEXT)
    applied(getattr(str, name), "", *arguments, **keywords)
    named_arguments = {_BY_KEYWORD[key]: value for key, value in keywords.items()}
    if name == "split":
        return _split(text, *arguments, **named_arguments)
    return as_known(_TRANSFORMS[name](*arguments, **named_arguments).planned(plan, text))


def _split(text: Text, separator: str | None = None, maxsplit: int = -1) -> SplitText:
    return SplitText(text, separator, maxsplit)


def _join(plan: Plan, separator: str | Text, items: Sequence[Any]) -> str | Text:
    if not all(map(is_text, items)):
        wrong = next(item for item in items if not is_text(item))
        raise UnreadableError(f"joins {named(wrong)}")
    if all(type(item) is str for item in items) and type(separator) is str:
        return separator.join(items)
    if type(separator) is str and 1 < len(items) <= _MOST_JOINED:
        return plan.join(list(map(as_text, items)), separator)
    between = [separator] * len(items)
    return joined([part for pair in zip(between, items, strict=True) for part in pair][1:])


def _replaced(text: str, old: Any, new: Any, count: Any = -1) -> str | Text:
    """A literal's placeholder becomes a text that the run brings."""
    if type(old) is not str or not old or not is_text(new) or type(count) is not int:
        raise UnreadableError(NEEDS_THE_TEXT)
    parts = text.split(old, count)
    between = [new] * len(parts)
    return joined([part for pair in zip(between, parts, strict=True) for part in pair][1:])


def formatted(value: Any, conversion: str | None, spec: str) -> str | Text:
    """A replacement field of an f-string or of `format`.

    Raises:
        UnreadableError: it formats what only the run knows, or what a class decides.
    """
    if type(value) is Text and not spec and conversion in (None, "s"):
        return value
    if type(value) is Text:
        raise UnreadableError(NEEDS_THE_TEXT)
    if not is_plain(value):
        raise UnreadableError(f"puts {named(value)} into a text")
    if any(int(number) > _WIDEST for number in _numbers(spec)):
        raise UnreadableError("makes something very large")
    converted = applied(Formatter().convert_field, value, conversion)
    return str(applied(format, converted, spec))


def _numbers(spec: str) -> list[str]:
    digits = "".join(c if c in "0123456789" else " " for c in spec)
    return digits.split()


def _format(template: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> str | Text:
    parts: list[str | Text] = []
    for literal, name, spec, conversion in _numbered(template):
        parts.append(literal)
        if name is not None:
            if "{" in (spec or ""):
                raise UnreadableError("has a field inside a field")
            parts.append(formatted(_field(name, arguments, keywords), conversion, spec or ""))
    return joined(parts)


def _numbered(template: str) -> list[tuple[str, str | None, str | None, str | None]]:
    """The pieces of a template, where fields that have no name are counted, or none are."""
    pieces = list(applied(list, Formatter().parse(template)))
    names = [name for _, name, _, _ in pieces if name is not None]
    if "" not in names:
        return pieces
    if any(name.isdigit() for name in names):
        raise UnreadableError("raises ValueError")
    numbers = count()
    return [
        (literal, str(next(numbers)) if name == "" else name, spec, conversion)
        for literal, name, spec, conversion in pieces
    ]


def _field(name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    if name.isascii() and name.isdigit() and int(name) < len(arguments):
        return arguments[int(name)]
    if name.isidentifier() and name in keywords:
        return keywords[name]
    raise UnreadableError(f"has a field '{name}' that is no plain name, or is not given")
