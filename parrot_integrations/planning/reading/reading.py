"""What a function gives for symbolic values: it is read, and never run."""

import ast
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from inspect import CO_COROUTINE, iscoroutinefunction
from logging import Logger
from types import BuiltinMethodType, FunctionType, MethodDescriptorType, MethodType, ModuleType
from typing import Any

from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.reading import displays as displays  # registers them
from parrot_integrations.planning.reading import terms as terms  # registers them
from parrot_integrations.planning.reading.arguments import bound
from parrot_integrations.planning.reading.builtin_calls import call_builtin, find_builtin
from parrot_integrations.planning.reading.containers import Owned, container_method
from parrot_integrations.planning.reading.expressions import Expressions
from parrot_integrations.planning.reading.framework import Framework
from parrot_integrations.planning.reading.kinds import (
    Awaitable,
    Iterated,
    SplitText,
    is_constant,
    is_json,
    is_text,
    named,
    settled,
    wanted,
)
from parrot_integrations.planning.reading.names import Names, stored
from parrot_integrations.planning.reading.problems import UnreadableError, unread
from parrot_integrations.planning.reading.source import source_of
from parrot_integrations.planning.reading.statements import returned
from parrot_integrations.planning.reading.text_methods import text_method
from parrot_integrations.planning.transforms import declared, transformed

_MOST_STEPS = 50_000
_DEEPEST = 12
_LOGS = {"debug", "info", "warning", "error"}


def read(
    plan: Plan,
    framework: Framework,
    function: Any,
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
) -> Any:
    """What a function gives for values that may be symbolic; a coroutine is awaited.

    Transforms of texts that the run brings are added to the plan, whatever the framework plans of its
    own on the way stays planned when the reading ends before the function does.

    Raises:
        BreakError: it can't be told beforehand.
        NotYetError: it can be told when something is known that is not yet.
    """
    reader = Reader(plan, framework)
    try:
        found = reader.call(function, list(arguments), dict(keywords))
        if type(found) is Awaitable and iscoroutinefunction(function):
            found = found.result()
        return _finished(found)
    except UnreadableError as problem:
        raise unread(str(problem)) from None
    except RecursionError:
        raise unread("it is nested too deep") from None


class Reader:
    """One reading: the function, and those that it calls."""

    def __init__(self, plan: Plan, framework: Framework) -> None:
        self.plan = plan
        self.framework = framework
        self.owned = Owned()
        self._steps = 0
        self._depth = 0

    def spend(self) -> None:
        """One more step.

        Raises:
            UnreadableError: there were too many.
        """
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise UnreadableError("takes too long to read")

    def call(self, function: Any, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        """What a function gives.

        Raises:
            UnreadableError: it is none that can be read.
        """
        function = settled(function)
        if (builtin := find_builtin(function)) is not None:
            return call_builtin(builtin, self.plan, self.owned, arguments, keywords)
        if (steps := declared(function)) and len(arguments) == 1 and not keywords:
            return transformed(self.plan, steps, settled(arguments[0]))
        if type(function) is FunctionType:
            return self._read(function, arguments, keywords)
        if type(function) is MethodType:
            return self.call(function.__func__, [function.__self__, *arguments], keywords)
        if type(function) is partial:
            return self.call(
                function.func,
                [*function.args, *arguments],
                {**function.keywords, **keywords},
            )
        if type(function) is BuiltinMethodType and is_constant(function.__self__):
            return self.method(function.__self__, function.__name__, arguments, keywords)
        if type(function) is MethodDescriptorType and _is_of(function, arguments):
            return self.method(arguments[0], function.__name__, arguments[1:], keywords)
        found = self.framework.call(function, arguments, keywords)
        if found is NotImplemented:
            raise UnreadableError(f"calls {named(function)}, which can't be read")
        return found

    def method(self, value: Any, name: str, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        """What a method gives.

        Raises:
            UnreadableError: it is none that can be read.
        """
        if is_json(value) and name == "get" and len(arguments) in (1, 2):
            return value.item(settled(arguments[0]))
        value = wanted(self.plan, value)
        if is_text(value):
            return text_method(self.plan, value, name, arguments, keywords)
        if type(value) in (list, tuple, dict):
            return container_method(self.owned, value, name, arguments, keywords)
        found = self.framework.method(value, name, arguments, keywords)
        if found is not NotImplemented:
            return found
        if type(value) is Logger and name in _LOGS:
            return None
        if type(value) is ModuleType:
            return self.call(stored(value, name), arguments, keywords)
        method = stored(type(value), name)
        if type(method) is FunctionType and stored(value, name) is method:
            return self.call(method, [value, *arguments], keywords)
        raise UnreadableError(f"calls `{name}` of {named(value)}")

    def _read(self, function: FunctionType, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        node = source_of(function.__code__)
        values = bound(function, arguments, keywords, self.framework.takes)
        if function.__code__.co_flags & CO_COROUTINE:
            return Awaitable(lambda: self._returned(function, node, values))
        return self._returned(function, node, values)

    def _returned(self, function: FunctionType, node: Any, values: dict[str, Any]) -> Any:
        if self._depth == _DEEPEST:
            raise UnreadableError("calls functions too deep")
        names = Names(function, node, values, self.framework.takes)
        expressions = Expressions(self, names)
        self._depth += 1
        try:
            if isinstance(node, ast.Lambda):
                return expressions.value(node.body)
            return returned(expressions, node.body)
        finally:
            self._depth -= 1


def _is_of(function: MethodDescriptorType, arguments: Sequence[Any]) -> bool:
    """Whether a method as its class has it, `str.strip`, gets an object of that class."""
    kind = str if arguments and is_text(arguments[0]) else type(next(iter(arguments), None))
    return function.__objclass__ is kind


def _finished(value: Any) -> Any:
    """A result, in which nothing is left that lives only inside a reading."""
    if type(value) in (Iterated, Awaitable, SplitText):
        raise UnreadableError(f"it gives {named(value)}")
    for item in _items(value):
        _finished(item)
    return value


def _items(value: Any) -> Iterable[Any]:
    if type(value) is dict:
        return value.values()
    return value if type(value) in (list, tuple) else ()
