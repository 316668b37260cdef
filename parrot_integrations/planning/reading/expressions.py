"""Evaluates expressions on symbolic values; what can't be told beforehand ends the reading."""

import ast
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.reading.containers import Owned
from parrot_integrations.planning.reading.framework import Framework
from parrot_integrations.planning.reading.kinds import (
    Iterated,
    items_of,
    settled,
)
from parrot_integrations.planning.reading.names import Names
from parrot_integrations.planning.reading.operations import (
    truth,
    unpacked,
)
from parrot_integrations.planning.reading.problems import UnreadableError, located


class Caller(Protocol):
    """Reads calls, and knows what one reading has in common."""

    plan: Plan
    framework: Framework
    owned: Owned

    def call(self, function: Any, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        """What a function gives."""

    def method(self, value: Any, name: str, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        """What a method gives."""

    def spend(self) -> None:
        """One more step of this reading."""


class Expressions:
    """The expressions of one call of a function."""

    def __init__(self, caller: Caller, names: Names) -> None:
        self.caller = caller
        self.names = names

    def inside(self) -> "Expressions":
        """Those of a comprehension, which has names of its own."""
        return Expressions(self.caller, self.names.inside())

    def value(self, node: ast.expr) -> Any:
        """What an expression gives, as something that can be kept; it need not be known yet.

        Raises:
            BreakError: it can't be told beforehand.
            NotYetError: it can be told when something is known that is not yet.
        """
        found = self.raw(node)
        if type(found) is Iterated:
            raise located(UnreadableError("is a generator that is kept"), node)
        return found

    def known(self, node: ast.expr) -> Any:
        """As `value`, where what is done next depends on what it is."""
        return settled(self.value(node))

    def raw(self, node: ast.expr) -> Any:
        """As `value`, where it is used at once: also a generator."""
        self.caller.spend()
        handler = _handlers.get(type(node))
        try:
            if handler is None:
                raise UnreadableError("is more than a reading follows")
            return handler(self, node)
        except UnreadableError as problem:
            raise located(problem, node) from None

    def test(self, node: ast.expr) -> bool:
        """Whether an expression is true."""
        value = self.known(node)
        try:
            return truth(value)
        except UnreadableError as problem:
            raise located(problem, node) from None

    def assign(self, target: ast.expr, value: Any) -> None:
        """Assign a value to what stands on the left."""
        try:
            self._assign(target, value)
        except UnreadableError as problem:
            raise located(problem, target) from None

    def _assign(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self.names.assign(target.id, value)
        elif isinstance(target, ast.Tuple | ast.List):
            if any(isinstance(part, ast.Starred) for part in target.elts):
                raise UnreadableError("takes the rest by a star")
            values = unpacked(self.caller.plan, settled(value), len(target.elts))
            for part, each in zip(target.elts, values, strict=True):
                self._assign(part, each)
        elif isinstance(target, ast.Subscript):
            self.caller.owned.assign(self.known(target.value), self.known(target.slice), value)
        else:
            raise UnreadableError("changes an object")

    def items(self, node: ast.expr) -> list[Any]:
        """What a loop over an expression goes through."""
        value = settled(self.raw(node))
        try:
            return items_of(value)
        except UnreadableError as problem:
            raise located(problem, node) from None

    def changing(self, value: Any, node: ast.AST) -> Any:
        """A container that a statement is about to change."""
        try:
            return self.caller.owned.changing(value)
        except UnreadableError as problem:
            raise located(problem, node) from None

    def elements(self, nodes: list[ast.expr]) -> Iterator[Any]:
        """The values of a display or of arguments, with those behind stars."""
        for node in nodes:
            if isinstance(node, ast.Starred):
                yield from items_of(settled(self.raw(node.value)))
            else:
                yield self.raw(node)


Handler = Callable[[Expressions, Any], Any]

_handlers: dict[type[ast.expr], Handler] = {}


def handles(kind: type[ast.expr]) -> Callable[[Handler], Handler]:
    """Register how a kind of expression is evaluated."""

    def register(handler: Handler) -> Handler:
        _handlers[kind] = handler
        return handler

    return register
