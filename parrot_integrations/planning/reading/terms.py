"""What expressions of each kind give, but for displays; importing registers them."""

import ast
from typing import Any

from parrot_integrations.planning.reading.expressions import Expressions, handles
from parrot_integrations.planning.reading.kinds import (
    Awaitable,
    is_json,
    joined,
    named,
    need,
    settled,
    wanted,
)
from parrot_integrations.planning.reading.operations import (
    combined,
    compared,
    item,
    truth,
    unary,
)
from parrot_integrations.planning.reading.problems import UnreadableError
from parrot_integrations.planning.reading.text_methods import formatted

_SYMBOLS: dict[type[ast.operator], str] = {ast.BitOr: "|", ast.Add: "+"}


@handles(ast.Constant)
def _constant(expressions: Expressions, node: ast.Constant) -> Any:
    return node.value


@handles(ast.Name)
def _name(expressions: Expressions, node: ast.Name) -> Any:
    return expressions.names.get(node.id)


@handles(ast.JoinedStr)
def _f_string(expressions: Expressions, node: ast.JoinedStr) -> Any:
    return joined([expressions.raw(part) for part in node.values])


@handles(ast.FormattedValue)
def _field(expressions: Expressions, node: ast.FormattedValue) -> Any:
    spec = expressions.known(node.format_spec) if node.format_spec is not None else ""
    conversion = None if node.conversion == -1 else chr(node.conversion)
    if type(spec) is not str:
        raise UnreadableError("formats as only the run knows")
    value = wanted(expressions.caller.plan, expressions.value(node.value))
    return formatted(need(value), conversion, spec)


@handles(ast.BinOp)
def _operation(expressions: Expressions, node: ast.BinOp) -> Any:
    plan, kind = expressions.caller.plan, type(node.op)
    left, right = (
        wanted(plan, expressions.value(node.left)),
        wanted(plan, expressions.value(node.right)),
    )
    symbol = _SYMBOLS.get(kind)
    if symbol is not None:
        found = expressions.caller.framework.operation(symbol, left, right)
        if found is not NotImplemented:
            return found
    return expressions.caller.owned.add(combined(kind, left, right))


@handles(ast.UnaryOp)
def _sign(expressions: Expressions, node: ast.UnaryOp) -> Any:
    return unary(type(node.op), expressions.known(node.operand))


@handles(ast.BoolOp)
def _boolean(expressions: Expressions, node: ast.BoolOp) -> Any:
    """The first operand that decides, else the last."""
    ends = isinstance(node.op, ast.Or)
    for operand in node.values[:-1]:
        value = expressions.known(operand)
        if truth(value) is ends:
            return value
    return expressions.value(node.values[-1])


@handles(ast.Compare)
def _comparison(expressions: Expressions, node: ast.Compare) -> Any:
    left = expressions.known(node.left)
    for operator, operand in zip(node.ops, node.comparators, strict=True):
        right = expressions.known(operand)
        if not compared(type(operator), left, right):
            return False
        left = right
    return True


@handles(ast.IfExp)
def _choice(expressions: Expressions, node: ast.IfExp) -> Any:
    return expressions.raw(node.body if expressions.test(node.test) else node.orelse)


@handles(ast.Subscript)
def _item(expressions: Expressions, node: ast.Subscript) -> Any:
    value, key = expressions.value(node.value), expressions.known(node.slice)
    if is_json(value) and type(key) in (str, int):
        return value.item(key)
    value = settled(value)
    found = expressions.caller.framework.item(value, key)
    if found is NotImplemented:
        found = item(expressions.caller.plan, value, key)
    return expressions.caller.owned.add(found) if type(key) is slice else found


@handles(ast.Slice)
def _slice(expressions: Expressions, node: ast.Slice) -> Any:
    ends = (node.lower, node.upper, node.step)
    return slice(*[None if end is None else expressions.known(end) for end in ends])


@handles(ast.Attribute)
def _attribute(expressions: Expressions, node: ast.Attribute) -> Any:
    value = expressions.value(node.value)
    if is_json(value):
        return value.attribute(node.attr)
    value = settled(value)
    found = expressions.caller.framework.attribute(value, node.attr)
    return expressions.names.attribute(value, node.attr) if found is NotImplemented else found


@handles(ast.Call)
def _call(expressions: Expressions, node: ast.Call) -> Any:
    method = node.func if isinstance(node.func, ast.Attribute) else None
    called = expressions.value(node.func if method is None else method.value)
    arguments = list(expressions.elements(node.args))
    keywords = _keywords(expressions, node.keywords)
    if method is not None:
        return expressions.caller.method(called, method.attr, arguments, keywords)
    return expressions.caller.call(called, arguments, keywords)


@handles(ast.Await)
def _awaited(expressions: Expressions, node: ast.Await) -> Any:
    value = expressions.raw(node.value)
    if type(value) is not Awaitable:
        raise UnreadableError(f"awaits {named(value)}")
    return value.result()


def _keywords(expressions: Expressions, nodes: list[ast.keyword]) -> dict[str, Any]:
    keywords: dict[str, Any] = {}
    for node in nodes:
        value = expressions.value(node.value)
        more = {node.arg: value} if node.arg is not None else settled(value)
        if type(more) is not dict or not all(type(key) is str for key in more):
            raise UnreadableError("takes keywords from something else than a dict")
        if keywords.keys() & more.keys():
            raise UnreadableError("raises TypeError")
        keywords |= more
    return keywords
