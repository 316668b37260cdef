"""What a reading tells apart. Only exact types count: a subclass may do anything.

Beside the symbolic values of planning there are some that live only inside a function:

    Iterated  what is gone through once, where it stands: a generator, `enumerate`, the items of a dict
    SplitText the parts of a text that the run will bring: one of them can be asked for
    Awaitable what a coroutine will give, planned when it is awaited
    Injected  an argument that the framework gives when it calls
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.reading.problems import NEEDS_THE_TEXT, UnreadableError
from parrot_integrations.planning.structured import JsonValue
from parrot_integrations.planning.values import Answer, NotYetError, Text, Unknown

SCALARS = (str, int, float, bool, type(None), bytes)
SEQUENCES = (list, tuple, range)


@dataclass(frozen=True, slots=True)
class Iterated:
    """Items that are gone through once, at the place where they stand."""

    items: list[Any]


@dataclass(frozen=True, slots=True)
class SplitText:
    """`text.split(separator, maxsplit)` of a text that the run will bring."""

    text: Text
    separator: str | None
    maxsplit: int


@dataclass(frozen=True, slots=True)
class Awaitable:
    """What a coroutine will give; nothing of it is planned before it is awaited."""

    result: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Injected:
    """An argument that the framework gives when it calls, such as its configuration."""

    name: str


def is_scalar(value: Any) -> bool:
    """Whether it is an immutable value of Python's own."""
    return type(value) in SCALARS


def is_constant(value: Any) -> bool:
    """Whether it can't change, however long it takes until the function runs."""
    if type(value) in (tuple, frozenset):
        return all(map(is_constant, value))
    return is_scalar(value)


def is_plain(value: Any) -> bool:
    """Whether it is known whole, and nothing that is done to it runs code of the user's."""
    if type(value) in (list, tuple, frozenset):
        return all(map(is_plain, value))
    if type(value) is dict:
        return all(is_plain(item) for pair in value.items() for item in pair)
    return is_scalar(value) or type(value) is range


def has_plain_keys(value: dict[Any, Any]) -> bool:
    """Whether looking something up compares nothing of the user's."""
    return all(map(is_constant, value))


def settled(value: Any) -> Any:
    """What a value is by now.

    Raises:
        NotYetError: only the run will tell.
    """
    # Asking an object of the user's whether it is an instance of something may run its code.
    if not issubclass(type(value), Unknown):
        return value
    if not value.settled:
        raise NotYetError(value)
    return settled(value.value)


def is_json(value: Any) -> bool:
    """Whether it is JSON that a call will give, of which the texts can be planned with."""
    return issubclass(type(value), JsonValue) and not value.settled


def wanted(plan: Plan, value: Any) -> Any:
    """A value where a text may stand: of JSON that a call will give, the text.

    Raises:
        NotYetError: only the run will tell.
    """
    return value.as_text(plan) if is_json(value) else settled(value)


def need(value: Any) -> Any:
    """`value`, where all of it is there.

    Raises:
        NotYetError: it, or something in it, is unknown.
    """
    value = settled(value)
    items = value.values() if type(value) is dict else value
    for item in items if type(value) in (list, tuple, dict) else ():
        need(item)
    return value


def items_of(value: Any) -> list[Any]:
    """What a loop over a value goes through.

    Raises:
        UnreadableError: only the run knows, or its class decides.
    """
    if type(value) is Iterated:
        return value.items
    if type(value) in (*SEQUENCES, str):
        return list(value)
    if type(value) is dict:
        return list(value)
    if type(value) in (Text, SplitText):
        raise UnreadableError(NEEDS_THE_TEXT)
    raise UnreadableError(f"goes through {named(value)}")


def named(value: Any) -> str:
    """What a value is, for a break's reason."""
    if type(value) is Text:
        return "a text that the run brings"
    if type(value) is SplitText:
        return "a list whose length only the run knows"
    if type(value) is Answer:
        return "a whole message"
    if type(value) is Iterated:
        return "a generator"
    if type(value) is Awaitable:
        return "a coroutine"
    if type(value) is Injected:
        return f"'{value.name}', which is known when it is called"
    return f"a {type(value).__name__}"


def as_text(value: str | Text) -> Text:
    """A string as a text."""
    if isinstance(value, str):
        return Text((value,) if value else ())
    return value


def as_known(text: Text) -> str | Text:
    """A text without variables is a string."""
    if all(type(piece) is str for piece in text.pieces):
        return "".join(str(piece) for piece in text.pieces)
    return text


def joined(parts: Iterable[str | Text]) -> str | Text:
    """Strings and texts behind one another."""
    pieces = [piece for part in parts for piece in as_text(part).pieces]
    return as_known(Text(tuple(pieces)))


def is_text(value: Any) -> bool:
    """Whether it is a string, known or not."""
    return type(value) is str or type(value) is Text
