"""Operators on symbolic values, where their outcome is certain."""

import ast
import operator
from collections.abc import Callable
from typing import Any

from parrot_integrations.planning import transforms
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.reading.kinds import (
    SEQUENCES,
    SplitText,
    has_plain_keys,
    is_constant,
    is_plain,
    is_text,
    items_of,
    joined,
    named,
    need,
)
from parrot_integrations.planning.reading.problems import (
    NEEDS_THE_TEXT,
    UnreadableError,
    raises,
)
from parrot_integrations.planning.values import Answer, Text

_MOST = 1_000_000
"""Characters, elements or bits that a product may have: a reading must not cost more than the run."""

_ERRORS = (TypeError, ValueError, LookupError, ArithmeticError)

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.BitOr: operator.or_,
    ast.BitAnd: operator.and_,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_NUMBERS = (int, float, bool)
_SIZED = (str, bytes, list, tuple)


def applied(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """What a function of Python's own gives for plain values.

    Raises:
        UnreadableError: it raises, and so would the run.
    """
    try:
        return function(*arguments, **keywords)
    except _ERRORS as error:
        raise raises(error) from None


def truth(value: Any) -> bool:
    """`bool(value)`.

    Raises:
        UnreadableError: only the run knows, or its class decides.
    """
    if type(value) is Text:
        if any(type(piece) is str and piece for piece in value.pieces):
            return True
        raise UnreadableError(NEEDS_THE_TEXT)
    if type(value) in (*SEQUENCES, dict, frozenset) or is_constant(value):
        return bool(value)
    if type(value) is Answer:
        return True
    raise UnreadableError(f"asks whether {named(value)} is true")


def compared(kind: type[ast.cmpop], left: Any, right: Any) -> bool:
    """One comparison.

    Raises:
        UnreadableError: it depends on what only the run knows, or a class decides.
    """
    if kind in (ast.Is, ast.IsNot):
        return _same(left, right) is (kind is ast.Is)
    if kind in (ast.In, ast.NotIn):
        return _contains(right, left) is (kind is ast.In)
    need([left, right])
    if is_plain(left) and is_plain(right):
        return bool(applied(_COMPARE[kind], left, right))
    if type(left) is Text or type(right) is Text:
        raise UnreadableError(NEEDS_THE_TEXT)
    raise UnreadableError(f"compares {named(left)} with {named(right)}")


def _same(left: Any, right: Any) -> bool:
    if left is not None and right is not None and bool not in (type(left), type(right)):
        raise UnreadableError("asks whether two values are one object")
    return left is right


def _contains(container: Any, item: Any) -> bool:
    if type(item) is Text or type(container) in (Text, SplitText):
        raise UnreadableError(NEEDS_THE_TEXT)
    if type(container) is dict and has_plain_keys(container) and is_constant(item):
        return item in container
    if is_plain(need(container)) and is_plain(need(item)):
        return bool(applied(operator.contains, container, item))
    raise UnreadableError(f"looks for something in {named(container)}")


def combined(kind: type[ast.operator], left: Any, right: Any) -> Any:
    """A binary operation.

    Raises:
        UnreadableError: it is none that can be told beforehand.
    """
    if kind is ast.Add and is_text(left) and is_text(right):
        return joined([left, right])
    if kind is ast.Add and type(left) is type(right) and type(left) in (list, tuple):
        return left + right
    if kind is ast.BitOr and _is_dict(left) and _is_dict(right):
        return left | right
    if type(left) is Text or type(right) is Text:
        raise UnreadableError(NEEDS_THE_TEXT)
    if kind in _ARITHMETIC and is_plain(left) and is_plain(right):
        _check_size(kind, left, right)
        return applied(_ARITHMETIC[kind], left, right)
    raise UnreadableError(f"is an operation on {named(left)} and {named(right)}")


def _is_dict(value: Any) -> bool:
    return type(value) is dict and has_plain_keys(value)


def _check_size(kind: type[ast.operator], left: Any, right: Any) -> None:
    if kind is ast.Mod and type(left) in (str, bytes):
        raise UnreadableError("formats by %")
    if kind is ast.Mult and float not in (type(left), type(right)):
        size = _size(left) * _size(right) if _is_repeated(left, right) else _bits(left, right)
        if size > _MOST:
            raise UnreadableError("makes something very large")


def _is_repeated(left: Any, right: Any) -> bool:
    return type(left) in _SIZED or type(right) in _SIZED


def _size(value: Any) -> int:
    return len(value) if type(value) in _SIZED else int(value or 0)


def _bits(*factors: Any) -> int:
    return sum(int(factor or 0).bit_length() for factor in factors)


def unary(kind: type[ast.unaryop], value: Any) -> Any:
    """`not`, or a sign of a number."""
    if kind is ast.Not:
        return not truth(value)
    if kind in _UNARY and type(value) in _NUMBERS:
        return _UNARY[kind](value)
    raise UnreadableError(f"is an operation on {named(value)}")


def item(plan: Plan, value: Any, key: Any) -> Any:
    """`value[key]`.

    Raises:
        UnreadableError: it is not there, only the run knows, or its class decides.
    """
    if type(value) is Text:
        raise UnreadableError(NEEDS_THE_TEXT)
    if type(value) is SplitText and type(key) is int:
        part = transforms.split(value.separator, key, value.maxsplit)
        return part.planned(plan, value.text)
    if type(value) is dict and has_plain_keys(value) and is_constant(key):
        return applied(operator.getitem, value, key)
    if type(value) in (*SEQUENCES, str, bytes) and _is_index(key):
        return applied(operator.getitem, value, key)
    raise UnreadableError(f"takes an item of {named(value)}")


def _is_index(key: Any) -> bool:
    if type(key) is slice:
        return all(type(end) in (int, type(None)) for end in (key.start, key.stop, key.step))
    return type(key) is int


def unpacked(plan: Plan, value: Any, count: int) -> list[Any]:
    """The values of so many names on the left.

    Raises:
        UnreadableError: there may be more or fewer.
    """
    if type(value) is SplitText and value.maxsplit == count - 1:
        return [item(plan, value, index) for index in range(count)]
    items = items_of(value)
    if len(items) != count:
        raise UnreadableError("raises ValueError")
    return items
