"""Python's own functions, on values that are known as far as each of them needs it.

They are found by identity, so a name that means something else here is no builtin.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.reading.containers import Owned
from parrot_integrations.planning.reading.kinds import (
    Awaitable,
    Iterated,
    SplitText,
    is_constant,
    is_plain,
    items_of,
    named,
    need,
    settled,
    wanted,
)
from parrot_integrations.planning.reading.operations import applied, truth
from parrot_integrations.planning.reading.problems import NEEDS_THE_TEXT, UnreadableError
from parrot_integrations.planning.reading.text_methods import formatted
from parrot_integrations.planning.structured import JsonValue
from parrot_integrations.planning.values import Answer, Text

_LONGEST_RANGE = 100_000

Builtin = Callable[..., Any]


def find_builtin(function: Any) -> Builtin | None:
    """How to read a call of a function, where it is Python's own; called with `Owned` before it."""
    found = _BUILTINS.get(id(function))
    return found[1] if found is not None and found[0] is function else None


def call_builtin(
    builtin: Builtin,
    plan: Plan,
    owned: Owned,
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
) -> Any:
    """What it gives.

    Raises:
        UnreadableError: it needs what only the run knows, or raises.
    """
    if builtin is not _print:
        text = builtin is _str
        arguments = [wanted(plan, a) if text else settled(a) for a in arguments]
    try:
        return builtin(owned, *arguments, **keywords)
    except TypeError:
        raise UnreadableError("raises TypeError") from None


def _len(owned: Owned, value: Any, /) -> int:
    if type(value) in (Text, SplitText):
        raise UnreadableError(NEEDS_THE_TEXT)
    if type(value) not in (str, bytes, list, tuple, dict, range, frozenset):
        raise UnreadableError(f"asks for the length of {named(value)}")
    return len(value)


def _str(owned: Owned, value: Any = "", /) -> str | Text:
    return formatted(need(value), None, "")


def _bool(owned: Owned, value: Any = False, /) -> bool:
    return truth(value)


def _list(owned: Owned, items: Any = (), /) -> Any:
    return owned.add(list(items_of(items)))


def _tuple(owned: Owned, items: Any = (), /) -> Any:
    return tuple(items_of(items))


def _dict(owned: Owned, given: Any = (), /, **keywords: Any) -> Any:
    items = given.items() if type(given) is dict else items_of(given)
    pairs = [_pair(item) for item in items]
    if not all(is_constant(key) for key, _ in pairs):
        raise UnreadableError("has a key that is not a plain one")
    return owned.add(dict(pairs, **keywords))


def _pair(item: Any) -> tuple[Any, Any]:
    pair = items_of(item)
    if len(pair) != 2:
        raise UnreadableError("raises ValueError")
    return pair[0], pair[1]


def _enumerate(owned: Owned, items: Any, start: Any = 0) -> Iterated:
    if type(start) is not int:
        raise UnreadableError("counts from something else than a number")
    return Iterated(list(enumerate(items_of(items), start)))


def _zip(owned: Owned, *several: Any, strict: Any = False) -> Iterated:
    return Iterated(applied(list, zip(*map(items_of, several), strict=truth(strict))))


def _reversed(owned: Owned, items: Any, /) -> Iterated:
    if type(items) not in (list, tuple, str, range, dict):
        raise UnreadableError(f"goes through {named(items)}")
    return Iterated(items_of(items)[::-1])


def _range(owned: Owned, *ends: Any) -> range:
    if not all(type(end) is int for end in ends):
        raise UnreadableError("counts to something else than a number")
    found: range = applied(range, *ends)
    if len(found) > _LONGEST_RANGE:
        raise UnreadableError("makes something very large")
    return found


def _isinstance(owned: Owned, value: Any, kinds: Any, /) -> bool:
    several = kinds if type(kinds) is tuple else (kinds,)
    if any(id(kind) not in _TYPES for kind in several):
        raise UnreadableError("asks for a type that is not Python's own")
    if type(value) is Text:
        return str in several
    if type(value) is Answer:
        return False
    if not is_constant(value) and type(value) not in (list, tuple, dict):
        raise UnreadableError(f"asks for the type of {named(value)}")
    return isinstance(value, several)


def _print(owned: Owned, *values: Any, **options: Any) -> None:
    """Whatever is printed, nothing that is planned reads it."""


def _loads(owned: Owned, text: Any, /) -> Any:
    if type(text) is Text:
        return JsonValue(text, {}, "json.loads")
    if type(text) is not str:
        raise UnreadableError(f"parses {named(text)}")
    return owned.add(applied(json.loads, text))


def _gather(owned: Owned, *several: Any, return_exceptions: Any = False) -> Awaitable:
    if not all(type(each) is Awaitable for each in several):
        raise UnreadableError("awaits something that is no call of a step")
    return Awaitable(lambda: owned.add([each.result() for each in several]))


def _task(owned: Owned, coroutine: Any, /) -> Awaitable:
    """It runs ahead; that it is awaited at all, is a good guess."""
    if type(coroutine) is not Awaitable:
        raise UnreadableError("starts something that is no call of a step")
    return coroutine


def _of_plain_values(function: Any) -> Builtin:
    def call(owned: Owned, *arguments: Any, **keywords: Any) -> Any:
        given = [need(items_of(a)) if type(a) is Iterated else a for a in arguments]
        need([*given, *keywords.values()])
        if not all(map(is_plain, [*given, *keywords.values()])):
            needy = any(type(value) is Text for value in given)
            raise UnreadableError(NEEDS_THE_TEXT if needy else "gets something that is not plain")
        found = applied(function, *given, **keywords)
        return owned.add(found) if function is sorted else found

    return call


_OF_PLAIN_VALUES = (int, float, repr, ascii, abs, round, sum, min, max, sorted, ord, chr)
_TYPES = {id(kind) for kind in (str, bytes, int, float, bool, list, tuple, dict)}

_READ: list[tuple[Any, Builtin]] = [
    (len, _len),
    (str, _str),
    (bool, _bool),
    (list, _list),
    (tuple, _tuple),
    (dict, _dict),
    (enumerate, _enumerate),
    (zip, _zip),
    (reversed, _reversed),
    (range, _range),
    (isinstance, _isinstance),
    (print, _print),
    (json.loads, _loads),
    (json.dumps, _of_plain_values(json.dumps)),
    (asyncio.gather, _gather),
    (asyncio.create_task, _task),
    *((function, _of_plain_values(function)) for function in _OF_PLAIN_VALUES),
]
_BUILTINS: dict[int, tuple[Any, Builtin]] = {id(f): (f, read) for f, read in _READ}
