"""Follows the statements of a function, as far as they can be told beforehand."""

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from parrot_integrations.planning.reading.expressions import Expressions
from parrot_integrations.planning.reading.kinds import items_of, settled
from parrot_integrations.planning.reading.problems import (
    RefusalError,
    UnreadableError,
    located,
    refused,
)


@dataclass(frozen=True, slots=True)
class Leaves:
    """A statement that the next one does not follow: `return`, `break` or `continue`."""

    kind: str
    value: Any = None


_BREAK, _CONTINUE = Leaves("break"), Leaves("continue")


def returned(expressions: Expressions, statements: Sequence[ast.stmt]) -> Any:
    """What a function's body returns.

    Raises:
        BreakError: it can't be told beforehand.
        NotYetError: it can be told when something is known that is not yet.
    """
    leaves = _block(expressions, statements)
    return None if leaves is None else leaves.value


def _block(expressions: Expressions, statements: Sequence[ast.stmt]) -> Leaves | None:
    for statement in statements:
        expressions.caller.spend()
        handler = _HANDLERS.get(type(statement))
        if handler is None:
            raise located(UnreadableError("is more than a reading follows"), statement)
        if (leaves := handler(expressions, statement)) is not None:
            return leaves
    return None


def _return(expressions: Expressions, node: ast.Return) -> Leaves:
    return Leaves("return", None if node.value is None else expressions.value(node.value))


def _expression(expressions: Expressions, node: ast.Expr) -> None:
    expressions.value(node.value)


def _assign(expressions: Expressions, node: ast.Assign) -> None:
    value = expressions.value(node.value)
    for target in node.targets:
        expressions.assign(target, value)


def _annotated(expressions: Expressions, node: ast.AnnAssign) -> None:
    if node.value is not None:
        expressions.assign(node.target, expressions.value(node.value))


def _augmented(expressions: Expressions, node: ast.AugAssign) -> None:
    """`a += b`; of a list it changes the list itself."""
    if not isinstance(node.target, ast.Name):
        raise located(UnreadableError("changes something in place"), node)
    before = ast.copy_location(ast.Name(node.target.id, ast.Load()), node.target)
    value = expressions.known(before)
    if type(value) is list:
        more = items_of(settled(expressions.raw(node.value)))
        expressions.changing(value, node).extend(more)
    else:
        operation = ast.copy_location(ast.BinOp(before, node.op, node.value), node)
        expressions.assign(node.target, expressions.value(operation))


def _if(expressions: Expressions, node: ast.If) -> Leaves | None:
    return _block(expressions, node.body if expressions.test(node.test) else node.orelse)


def _for(expressions: Expressions, node: ast.For) -> Leaves | None:
    for each in expressions.items(node.iter):
        expressions.assign(node.target, each)
        leaves = _block(expressions, node.body)
        if leaves is _BREAK:
            return None
        if leaves is not None and leaves is not _CONTINUE:
            return leaves
    return _block(expressions, node.orelse)


def _try(expressions: Expressions, node: ast.Try) -> Leaves | None:
    """As it goes where nothing is raised; what is raised, only the run knows."""
    try:
        leaves = _block(expressions, node.body)
    except RefusalError:
        if node.handlers:
            raise located(UnreadableError("raises and may catch"), node) from None
        raise
    if leaves is None:
        leaves = _block(expressions, node.orelse)
    return _block(expressions, node.finalbody) or leaves


def _raise(expressions: Expressions, node: ast.Raise) -> None:
    raise refused(node)


def _assert(expressions: Expressions, node: ast.Assert) -> None:
    if not expressions.test(node.test):
        raise located(UnreadableError("raises AssertionError"), node)


_HANDLERS: dict[type[ast.stmt], Callable[[Expressions, Any], Leaves | None]] = {
    ast.Return: _return,
    ast.Raise: _raise,
    ast.Expr: _expression,
    ast.Assign: _assign,
    ast.AnnAssign: _annotated,
    ast.AugAssign: _augmented,
    ast.If: _if,
    ast.For: _for,
    ast.Try: _try,
    ast.Assert: _assert,
    ast.Pass: lambda expressions, node: None,
    ast.Break: lambda expressions, node: _BREAK,
    ast.Continue: lambda expressions, node: _CONTINUE,
}
