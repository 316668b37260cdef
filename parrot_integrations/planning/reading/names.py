"""What names mean inside a function: its own variables, and what it takes from outside.

From outside comes only what can't have changed when the function runs: constants, functions, and what
the framework says may be taken, as its steps, of which a wrong guess costs time only.
"""

import ast
from collections.abc import Callable, Iterator
from inspect import getattr_static
from logging import Logger
from types import BuiltinFunctionType, CodeType, FunctionType, MethodDescriptorType, ModuleType
from typing import Any

from parrot_integrations.planning.reading.builtin_calls import find_builtin
from parrot_integrations.planning.reading.kinds import is_constant
from parrot_integrations.planning.reading.problems import UnreadableError
from parrot_integrations.planning.reading.source import Function

Takes = Callable[[Any], bool]

_UNBOUND = object()
_CALLABLE = (FunctionType, BuiltinFunctionType, MethodDescriptorType, ModuleType)
_SCOPES = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda)


class Names:
    """The names of one call of a function."""

    def __init__(
        self, function: FunctionType, node: Function, arguments: dict[str, Any], takes: Takes
    ) -> None:
        self._function = function
        self._takes = takes
        self._own = {*arguments, *_assigned(node)}
        self._values = arguments

    def inside(self) -> "Names":
        """Those of a comprehension: what it assigns is seen nowhere else."""
        inner = Names.__new__(Names)
        inner._function, inner._takes = self._function, self._takes
        inner._own, inner._values = set(self._own), dict(self._values)
        return inner

    def assign(self, name: str, value: Any) -> None:
        """Give a name of the function's own a value."""
        self._own.add(name)
        self._values[name] = value

    def get(self, name: str) -> Any:
        """The value of a name.

        Raises:
            UnreadableError: it has none yet, or one from outside that may change.
        """
        if name in self._own:
            if name not in self._values:
                raise UnreadableError("has no value yet")
            return self._values[name]
        return self._taken(self._outside(name))

    def attribute(self, value: Any, name: str) -> Any:
        """What an attribute of a module or of an object of the user's is, where it is just stored.

        Raises:
            UnreadableError: code decides what it is, or it may change.
        """
        found = stored(value, name)
        if type(found) in _CALLABLE and type(value) is not ModuleType:
            raise UnreadableError("may be a method")
        return self._taken(found)

    def _outside(self, name: str) -> Any:
        function = self._function
        code: CodeType = function.__code__
        if name in code.co_freevars:
            cells = function.__closure__ or ()
            cell = cells[code.co_freevars.index(name)]
            try:
                return cell.cell_contents
            except ValueError:
                return _UNBOUND
        builtins: Any = function.__builtins__
        for namespace in (function.__globals__, builtins):
            if type(namespace) is not dict:
                raise UnreadableError("comes from globals of a class of their own")
            if name in namespace:
                return namespace[name]
        return _UNBOUND

    def _taken(self, value: Any) -> Any:
        if value is _UNBOUND:
            raise UnreadableError("is not there")
        if (
            is_constant(value)
            or type(value) in (*_CALLABLE, Logger)
            or find_builtin(value) is not None
        ):
            return value
        if self._takes(value):
            return value
        raise UnreadableError(f"is a {type(value).__name__} from outside, which may change")


def stored(value: Any, name: str) -> Any:
    """An attribute as it is stored, without running anything; something strange where it is not.

    Raises:
        UnreadableError: its class looks attributes up by code of its own.
    """
    if type(value) is ModuleType:
        return vars(value).get(name, _UNBOUND)
    looked_up = getattr_static(type(value), "__getattribute__", None)
    if looked_up not in (vars(object)["__getattribute__"], vars(type)["__getattribute__"]):
        raise UnreadableError("looks up its attributes by code of its own")
    return getattr_static(value, name, _UNBOUND)


def _assigned(node: Function) -> Iterator[str]:
    """The names that a function assigns, all of which are its own, also before they have a value."""
    stack = [] if isinstance(node, ast.Lambda) else list[ast.AST](node.body)
    while stack:
        part = stack.pop()
        if isinstance(part, ast.Name) and not isinstance(part.ctx, ast.Load):
            yield part.id
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield part.name
        elif isinstance(part, ast.alias):
            yield (part.asname or part.name).partition(".")[0]
        elif isinstance(part, ast.ExceptHandler) and part.name:
            yield part.name
        if not isinstance(part, (*_SCOPES, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            stack += ast.iter_child_nodes(part)
