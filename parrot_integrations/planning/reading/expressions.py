"""Evaluates expressions on symbolic values; what can't be told beforehand ends the reading."""

import ast
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.reading.containers import Owned
from parrot_integrations.planning.reading.framework import Framework
from parrot_integrations.planning.reading.kinds import (
    Awaitable,
    Iterated,
    has_plain_keys,
    is_constant,
    is_json,
    items_of,
    joined,
    named,
    need,
    settled,
    wanted,
)
from parrot_integrations.planning.reading.names import Names
from parrot_integrations.planning.reading.operations import (
    combined,
    compared,
    item,
    truth,
    unary,
    unpacked,
)
from parrot_integrations.planning.reading.problems import UnreadableError, located
from parrot_integrations.planning.reading.text_methods import formatted

_SYMBOLS: dict[type[ast.operator], str] = {ast.BitOr: "|", ast.Add: "+"}


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
        handler = _HANDLERS.get(type(node))
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

    def _constant(self, node: ast.Constant) -> Any:
        return node.value

    def _name(self, node: ast.Name) -> Any:
        return self.names.get(node.id)

    def _f_string(self, node: ast.JoinedStr) -> Any:
        return joined([self.raw(part) for part in node.values])

    def _field(self, node: ast.FormattedValue) -> Any:
        spec = self.known(node.format_spec) if node.format_spec is not None else ""
        conversion = None if node.conversion == -1 else chr(node.conversion)
        if type(spec) is not str:
            raise UnreadableError("formats as only the run knows")
        value = wanted(self.caller.plan, self.value(node.value))
        return formatted(need(value), conversion, spec)

    def _list(self, node: ast.List) -> Any:
        return self.caller.owned.add([self._kept(e) for e in self.elements(node.elts)])

    def _tuple(self, node: ast.Tuple) -> Any:
        return tuple(self._kept(e) for e in self.elements(node.elts))

    def _kept(self, value: Any) -> Any:
        if type(value) is Iterated:
            raise UnreadableError(f"keeps {named(value)}")
        return value

    def _dict(self, node: ast.Dict) -> Any:
        made: dict[Any, Any] = {}
        for key_node, value_node in zip(node.keys, node.values, strict=True):
            value = self.value(value_node)
            if key_node is None:
                value = settled(value)
                if type(value) is not dict or not has_plain_keys(value):
                    raise UnreadableError(f"takes over {named(value)}")
                made.update(value)
            else:
                made[self._key(key_node)] = value
        return self.caller.owned.add(made)

    def _key(self, node: ast.expr) -> Any:
        key = self.known(node)
        if not is_constant(key):
            raise UnreadableError(f"has {named(key)} as a key")
        return key

    def _operation(self, node: ast.BinOp) -> Any:
        plan, kind = self.caller.plan, type(node.op)
        left, right = wanted(plan, self.value(node.left)), wanted(plan, self.value(node.right))
        symbol = _SYMBOLS.get(kind)
        if symbol is not None:
            found = self.caller.framework.operation(symbol, left, right)
            if found is not NotImplemented:
                return found
        return self.caller.owned.add(combined(kind, left, right))

    def _unary(self, node: ast.UnaryOp) -> Any:
        return unary(type(node.op), self.known(node.operand))

    def _boolean(self, node: ast.BoolOp) -> Any:
        """The first operand that decides, else the last."""
        ends = isinstance(node.op, ast.Or)
        for operand in node.values[:-1]:
            value = self.known(operand)
            if truth(value) is ends:
                return value
        return self.value(node.values[-1])

    def _comparison(self, node: ast.Compare) -> Any:
        left = need(self.value(node.left))
        for operator, operand in zip(node.ops, node.comparators, strict=True):
            right = need(self.value(operand))
            if not compared(type(operator), left, right):
                return False
            left = right
        return True

    def _choice(self, node: ast.IfExp) -> Any:
        return self.raw(node.body if self.test(node.test) else node.orelse)

    def _item(self, node: ast.Subscript) -> Any:
        value, key = self.value(node.value), self.known(node.slice)
        if is_json(value) and type(key) in (str, int):
            return value.item(key)
        value = settled(value)
        found = self.caller.framework.item(value, key)
        return item(self.caller.plan, value, key) if found is NotImplemented else found

    def _slice(self, node: ast.Slice) -> Any:
        ends = (node.lower, node.upper, node.step)
        return slice(*[None if end is None else self.known(end) for end in ends])

    def _attribute(self, node: ast.Attribute) -> Any:
        value = self.value(node.value)
        if is_json(value):
            return value.attribute(node.attr)
        value = settled(value)
        found = self.caller.framework.attribute(value, node.attr)
        return self.names.attribute(value, node.attr) if found is NotImplemented else found

    def _call(self, node: ast.Call) -> Any:
        method = node.func if isinstance(node.func, ast.Attribute) else None
        called = self.value(node.func if method is None else method.value)
        arguments = list(self.elements(node.args))
        keywords = self._keywords(node.keywords)
        if method is not None:
            return self.caller.method(called, method.attr, arguments, keywords)
        return self.caller.call(called, arguments, keywords)

    def _keywords(self, nodes: list[ast.keyword]) -> dict[str, Any]:
        keywords: dict[str, Any] = {}
        for node in nodes:
            value = self.value(node.value)
            more = {node.arg: value} if node.arg is not None else settled(value)
            if type(more) is not dict or not all(type(key) is str for key in more):
                raise UnreadableError("takes keywords from something else than a dict")
            if keywords.keys() & more.keys():
                raise UnreadableError("raises TypeError")
            keywords |= more
        return keywords

    def _awaited(self, node: ast.Await) -> Any:
        value = self.raw(node.value)
        if type(value) is not Awaitable:
            raise UnreadableError(f"awaits {named(value)}")
        return value.result()

    def _list_comprehension(self, node: ast.ListComp) -> Any:
        made = [inner.value(node.elt) for inner in self._rounds(node.generators)]
        return self.caller.owned.add(made)

    def _generator(self, node: ast.GeneratorExp) -> Any:
        return Iterated([inner.raw(node.elt) for inner in self._rounds(node.generators)])

    def _dict_comprehension(self, node: ast.DictComp) -> Any:
        rounds = self._rounds(node.generators)
        made = {inner._key(node.key): inner.value(node.value) for inner in rounds}
        return self.caller.owned.add(made)

    def _rounds(
        self, loops: list[ast.comprehension], inside: "Expressions | None" = None
    ) -> Iterator["Expressions"]:
        """Once for each round of a comprehension's loops, with its names."""
        if not loops:
            yield inside or self
            return
        loop, *more = loops
        if loop.is_async:
            raise UnreadableError("loops over what is awaited")
        outer = inside or self
        items = outer.items(loop.iter)
        inner = inside or Expressions(self.caller, self.names.inside())
        for each in items:
            inner.assign(loop.target, each)
            if all(inner.test(condition) for condition in loop.ifs):
                yield from self._rounds(more, inner)


_HANDLERS: dict[type[ast.AST], Callable[[Expressions, Any], Any]] = {
    ast.Constant: Expressions._constant,
    ast.Name: Expressions._name,
    ast.JoinedStr: Expressions._f_string,
    ast.FormattedValue: Expressions._field,
    ast.List: Expressions._list,
    ast.Tuple: Expressions._tuple,
    ast.Dict: Expressions._dict,
    ast.BinOp: Expressions._operation,
    ast.UnaryOp: Expressions._unary,
    ast.BoolOp: Expressions._boolean,
    ast.Compare: Expressions._comparison,
    ast.IfExp: Expressions._choice,
    ast.Subscript: Expressions._item,
    ast.Slice: Expressions._slice,
    ast.Attribute: Expressions._attribute,
    ast.Call: Expressions._call,
    ast.Await: Expressions._awaited,
    ast.ListComp: Expressions._list_comprehension,
    ast.GeneratorExp: Expressions._generator,
    ast.DictComp: Expressions._dict_comprehension,
}
