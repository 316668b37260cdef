"""Lists, tuples and dicts as they are written out, and comprehensions; importing registers them."""

import ast
from collections.abc import Iterator
from typing import Any

from parrot_integrations.planning.reading.expressions import Expressions, handles
from parrot_integrations.planning.reading.kinds import (
    Iterated,
    has_plain_keys,
    is_constant,
    named,
)
from parrot_integrations.planning.reading.problems import UnreadableError


@handles(ast.List)
def _list(expressions: Expressions, node: ast.List) -> Any:
    return expressions.caller.owned.add([_kept(e) for e in expressions.elements(node.elts)])


@handles(ast.Tuple)
def _tuple(expressions: Expressions, node: ast.Tuple) -> Any:
    return tuple(_kept(e) for e in expressions.elements(node.elts))


def _kept(value: Any) -> Any:
    if type(value) is Iterated:
        raise UnreadableError(f"keeps {named(value)}")
    return value


@handles(ast.Dict)
def _dict(expressions: Expressions, node: ast.Dict) -> Any:
    made: dict[Any, Any] = {}
    for key_node, value_node in zip(node.keys, node.values, strict=True):
        if key_node is not None:
            key = _key(expressions, key_node)
            made[key] = expressions.value(value_node)
            continue
        more = expressions.known(value_node)
        if type(more) is not dict or not has_plain_keys(more):
            raise UnreadableError(f"takes over {named(more)}")
        made.update(more)
    return expressions.caller.owned.add(made)


def _key(expressions: Expressions, node: ast.expr) -> Any:
    key = expressions.known(node)
    if not is_constant(key):
        raise UnreadableError(f"has {named(key)} as a key")
    return key


@handles(ast.ListComp)
def _list_comprehension(expressions: Expressions, node: ast.ListComp) -> Any:
    made = [inner.value(node.elt) for inner in _rounds(expressions, node.generators)]
    return expressions.caller.owned.add(made)


@handles(ast.GeneratorExp)
def _generator(expressions: Expressions, node: ast.GeneratorExp) -> Any:
    return Iterated([inner.raw(node.elt) for inner in _rounds(expressions, node.generators)])


@handles(ast.DictComp)
def _dict_comprehension(expressions: Expressions, node: ast.DictComp) -> Any:
    rounds = _rounds(expressions, node.generators)
    made = {_key(inner, node.key): inner.value(node.value) for inner in rounds}
    return expressions.caller.owned.add(made)


def _rounds(
    outer: Expressions, loops: list[ast.comprehension], inner: Expressions | None = None
) -> Iterator[Expressions]:
    """Once for each round of a comprehension's loops, with its names."""
    loop, *more = loops
    if loop.is_async:
        raise UnreadableError("loops over what is awaited")
    items = (inner or outer).items(loop.iter)
    inner = inner or outer.inside()
    for each in items:
        inner.assign(loop.target, each)
        if not all(inner.test(condition) for condition in loop.ifs):
            continue
        if more:
            yield from _rounds(outer, more, inner)
        else:
            yield inner
