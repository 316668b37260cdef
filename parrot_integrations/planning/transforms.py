"""Pure functions on texts, declared by what they do: planning goes through them, and runs none.

    @semantic_transform(strip(), template("Title: {text}"))
    def heading(answer: str) -> str:
        return "Title: " + answer.strip()

The framework runs the function as always. Its declaration is only used to predict what it gives, so a
wrong one costs time, never correctness. There is a closed set of steps, which the backend can run.
"""

import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from string import Formatter
from types import FunctionType
from typing import Any, Protocol, TypeVar

from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.values import Answer, BreakError, Text, concat, need

F = TypeVar("F", bound=Callable[..., Any])

_ATTRIBUTE = "__semantic_transform__"


class Step(Protocol):
    """One declared step, from a text, or a list of texts, to a text."""

    def known(self, value: Any) -> str:
        """Of strings that are known."""

    def planned(self, plan: Plan, value: Any) -> Text:
        """Of texts, some of which the run will bring."""


@dataclass(frozen=True)
class _Join:
    separator: str

    def known(self, value: Sequence[str]) -> str:
        return self.separator.join(value)

    def planned(self, plan: Plan, value: Sequence[Text]) -> Text:
        return plan.join(value, self.separator)


@dataclass(frozen=True)
class _Method:
    """A method of `str`; `details` are its arguments as they go over the wire."""

    name: str
    arguments: tuple[Any, ...]
    details: tuple[tuple[str, Hashable], ...]

    def known(self, value: str) -> str:
        return str(getattr(str, self.name)(value, *self.arguments))

    def planned(self, plan: Plan, value: Text) -> Text:
        return plan.transform(self.name, [value], **dict(self.details))


@dataclass(frozen=True)
class _Split:
    separator: str | None
    index: int
    maxsplit: int

    def known(self, value: str) -> str:
        return value.split(self.separator, self.maxsplit)[self.index]

    def planned(self, plan: Plan, value: Text) -> Text:
        details = {"separator": self.separator, "index": self.index, "maxsplit": self.maxsplit}
        return plan.transform("split", [value], **details)


@dataclass(frozen=True)
class _JsonField:
    path: tuple[str | int, ...]

    def known(self, value: str) -> str:
        found: Any = json.loads(value)
        for step in self.path:
            found = found[step]
        if type(found) is not str:
            raise TypeError(f"it is a {type(found).__name__}, not a string")
        return found

    def planned(self, plan: Plan, value: Text) -> Text:
        return plan.json_field(value, self.path)


@dataclass(frozen=True)
class _Template:
    pieces: tuple[str | None, ...]

    def known(self, value: str) -> str:
        return "".join(value if piece is None else piece for piece in self.pieces)

    def planned(self, plan: Plan, value: Text) -> Text:
        return concat(value if piece is None else Text((piece,)) for piece in self.pieces)


def join(separator: str) -> Step:
    """`separator.join(texts)`; as first step, for it takes a list."""
    return _Join(separator)


def strip(characters: str | None = None) -> Step:
    """`text.strip(characters)`."""
    return _stripping("strip", characters)


def lstrip(characters: str | None = None) -> Step:
    """`text.lstrip(characters)`."""
    return _stripping("lstrip", characters)


def rstrip(characters: str | None = None) -> Step:
    """`text.rstrip(characters)`."""
    return _stripping("rstrip", characters)


def _stripping(name: str, characters: str | None) -> Step:
    details = () if characters is None else (("characters", characters),)
    return _Method(name, (characters,), details)


def lower() -> Step:
    """`text.lower()`."""
    return _Method("lower", (), ())


def upper() -> Step:
    """`text.upper()`."""
    return _Method("upper", (), ())


def replace(old: str, new: str, count: int = -1) -> Step:
    """`text.replace(old, new, count)`."""
    return _Method("replace", (old, new, count), (("old", old), ("new", new), ("count", count)))


def removeprefix(prefix: str) -> Step:
    """`text.removeprefix(prefix)`."""
    return _Method("removeprefix", (prefix,), (("prefix", prefix),))


def removesuffix(suffix: str) -> Step:
    """`text.removesuffix(suffix)`."""
    return _Method("removesuffix", (suffix,), (("suffix", suffix),))


def split(separator: str | None = None, index: int = 0, maxsplit: int = -1) -> Step:
    """`text.split(separator, maxsplit)[index]`."""
    return _Split(separator, index, maxsplit)


def json_field(*path: str | int) -> Step:
    """`json.loads(text)[key]...`, where that is a string: keys and indices from the root on."""
    if not path:
        raise ValueError("json_field needs the path of a field: json_field('answer')")
    return _JsonField(path)


def template(text: str) -> Step:
    """`template.format(text=text)`: the text between a fixed beginning and end.

    Raises:
        ValueError: it has another field than `{text}`.
    """
    pieces: list[str | None] = []
    for literal, name, spec, conversion in Formatter().parse(text):
        pieces.append(literal)
        if name is not None:
            if name != "text" or spec or conversion:
                raise ValueError(f"a template's one field is {{text}}; got {text!r}")
            pieces.append(None)
    return _Template(tuple(pieces))


def semantic_transform(*steps: Step) -> Callable[[F], F]:
    """Declare that a function of a text, or of a list of texts, does these steps one after another.

    The function stays what it is; in a compiled chain, planning goes on behind it.
    """
    if not steps:
        raise ValueError("declare at least one step, such as strip()")

    def declare(function: F) -> F:
        setattr(function, _ATTRIBUTE, steps)
        return function

    return declare


def declared(function: Any) -> Sequence[Step]:
    """What a function was declared to do; empty where it was not."""
    return vars(function).get(_ATTRIBUTE, ()) if isinstance(function, FunctionType) else ()


def transformed(plan: Plan, steps: Sequence[Step], value: Any) -> str | Text:
    """What the steps make of a value.

    Raises:
        BreakError: it is not a text, or list of texts, as the first step needs it.
        NotYetError: some of it is not known yet.
    """
    for step in steps:
        several = isinstance(step, _Join)
        texts = need(value) if several else [need(value)]
        if type(texts) not in (list, tuple) or not all(_is_text(text) for text in texts):
            wanted = "list of planned texts" if several else "planned text"
            raise BreakError(f"gets something that is not a {wanted}", _remedy(texts))
        value = _step(plan, step, texts if several else texts[0])
    return value  # type: ignore[no-any-return]


def _step(plan: Plan, step: Step, value: Any) -> str | Text:
    texts = value if isinstance(step, _Join) else [value]
    if any(isinstance(text, Text) for text in texts):
        planned = [text if isinstance(text, Text) else Text((text,)) for text in texts]
        return step.planned(plan, planned if isinstance(step, _Join) else planned[0])
    try:
        return step.known(value)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise BreakError(f"does not fit its declaration: {error}") from None


def _is_text(value: Any) -> bool:
    return type(value) is str or isinstance(value, Text)


def _remedy(texts: Any) -> str:
    messages = type(texts) in (list, tuple) and any(isinstance(text, Answer) for text in texts)
    return "Put StrOutputParser() behind the model." if messages else ""
