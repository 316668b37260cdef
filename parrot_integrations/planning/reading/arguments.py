"""Binds arguments to a function's parameters, as a call does."""

import inspect
from collections.abc import Mapping, Sequence
from types import FunctionType
from typing import Any

from parrot_integrations.planning.reading.kinds import Injected, is_constant
from parrot_integrations.planning.reading.names import Takes
from parrot_integrations.planning.reading.problems import UnreadableError

_STRANGE = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE


def bound(
    function: FunctionType, arguments: Sequence[Any], keywords: Mapping[str, Any], takes: Takes
) -> dict[str, Any]:
    """The value of each parameter.

    Raises:
        UnreadableError: they don't fit, a default may change, or it is a generator.
    """
    code = function.__code__
    if code.co_flags & _STRANGE:
        raise UnreadableError("it is a generator")
    names = code.co_varnames
    positional = names[: code.co_argcount]
    named = names[code.co_posonlyargcount : code.co_argcount + code.co_kwonlyargcount]
    values: dict[str, Any] = dict(zip(positional, arguments, strict=False))
    extra = arguments[len(positional) :]
    unknown: dict[str, Any] = {}
    for name, value in keywords.items():
        if name in values and name in named:
            raise UnreadableError("it gets an argument twice")
        (values if name in named else unknown)[name] = value
    rest = list(names[code.co_argcount + code.co_kwonlyargcount :])
    if code.co_flags & inspect.CO_VARARGS:
        values[rest.pop(0)], extra = tuple(extra), ()
    if code.co_flags & inspect.CO_VARKEYWORDS:
        values[rest.pop(0)], unknown = unknown, {}
    if extra or unknown:
        raise UnreadableError("it gets more arguments than it has parameters")
    defaults = _defaults(function)
    for name in [*positional, *names[code.co_argcount :][: code.co_kwonlyargcount]]:
        if name not in values:
            values[name] = _default(name, defaults, takes)
    return values


def _defaults(function: FunctionType) -> dict[str, Any]:
    code, given = function.__code__, function.__defaults__ or ()
    positional = code.co_varnames[: code.co_argcount]
    by_place = zip(positional[len(positional) - len(given) :], given, strict=True)
    return {**dict(by_place), **(function.__kwdefaults__ or {})}


def _default(name: str, defaults: Mapping[str, Any], takes: Takes) -> Any:
    if name not in defaults:
        raise UnreadableError(f"it gets nothing for '{name}'")
    value = defaults[name]
    # One that may change is only a break where it is used.
    return value if is_constant(value) or takes(value) else Injected(name)
