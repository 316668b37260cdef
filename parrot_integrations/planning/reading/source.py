"""Finds the syntax tree of exactly this function, or says why it can't be had.

A file may have changed since it was imported, a line may have several lambdas, and code may have been
written by code. So what is found is compiled again and compared: it must give the same bytecode,
constants, names and positions, else it is not the source of this function.
"""

import __future__

import ast
import linecache
import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache
from types import CodeType

from parrot_integrations.planning.reading.problems import UnreadableError

Function = ast.Lambda | ast.FunctionDef | ast.AsyncFunctionDef

_MAX_CHARACTERS = 400_000
_NAME = "<read>"
_FUTURES = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
_Span = tuple[int, int, int, int]


def source_of(code: CodeType) -> Function:
    """The syntax tree of a function, whose lines are those of its file.

    Raises:
        UnreadableError: there is no source, or it is not what was compiled.
    """
    found = _found(code, code.co_filename)
    if isinstance(found, str):
        raise UnreadableError(found)
    return found


@lru_cache(maxsize=4096)
def _found(code: CodeType, filename: str) -> Function | str:
    """The tree, or why there is none: equal code of one file has equal source."""
    linecache.checkcache(filename)
    text = "".join(linecache.getlines(filename))
    if not text or len(text) > _MAX_CHARACTERS:
        return "it has no source to read"
    try:
        tree = _tree(text, code.co_flags & _FUTURES)
        nodes = [node for statement in tree.body for node in _matching(tree, statement, code)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "its source can't be parsed"
    return nodes[0] if nodes else "its source has changed since it was compiled"


@lru_cache(maxsize=32)
def _tree(text: str, flags: int) -> ast.Module:
    # The user was warned of it at the import. This filter is for this name alone, and so it may stay:
    # to put back the filters of the whole process would be a race with whoever changes them.
    warnings.filterwarnings("ignore", module=_NAME)
    tree = compile(text, _NAME, "exec", flags | _AWAIT | ast.PyCF_ONLY_AST, True)
    if not isinstance(tree, ast.Module):
        raise ValueError("no module")
    return tree


# As a notebook compiles its cells.
_AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


def _matching(tree: ast.Module, statement: ast.stmt, code: CodeType) -> Iterator[Function]:
    """The function inside a statement of the module's that compiles to this code."""
    lines = range(_first_line(statement), (statement.end_lineno or 0) + 1)
    if code.co_firstlineno not in lines:
        return
    # Python compiles calls of methods of what a module imports in a way of their own.
    module = ast.Module([*_imports(tree.body), statement], [])
    flags = (code.co_flags & _FUTURES) | _AWAIT
    compiled = compile(module, _NAME, "exec", flags, True)
    spans = list(code.co_positions())
    if any(other == code and list(other.co_positions()) == spans for other in _codes(compiled)):
        yield from _innermost(statement, code)


def _imports(statements: Sequence[ast.AST]) -> Iterator[ast.stmt]:
    """The imports of a module, but for those from the future, which are flags of its code."""
    for statement in statements:
        if isinstance(statement, ast.Import) or (
            isinstance(statement, ast.ImportFrom) and statement.module != "__future__"
        ):
            yield statement
        elif isinstance(statement, ast.If | ast.Try | ast.With | ast.ExceptHandler):
            yield from _imports(list(ast.iter_child_nodes(statement)))


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _innermost(statement: ast.stmt, code: CodeType) -> Iterator[Function]:
    """The smallest function around all of the code, which is the one that it was compiled from."""
    # The first instruction's place is made up; others have none.
    spans = [_span(*span) for span in list(code.co_positions())[1:] if None not in span]
    spans = [span for span in spans if span[2:] != (0, 0) or span[0] != code.co_firstlineno]
    functions = [node for node in ast.walk(statement) if isinstance(node, Function)]
    around = [node for node in functions if _is_around(node, code, spans)]
    if around:
        yield max(around, key=lambda node: (node.lineno, node.col_offset))


def _span(line: int | None, end: int | None, column: int | None, end_column: int | None) -> _Span:
    return line or 0, end or 0, column or 0, end_column or 0


def _is_around(node: Function, code: CodeType, spans: list[_Span]) -> bool:
    if getattr(node, "name", "<lambda>") != code.co_name or _first_line(node) != (
        code.co_firstlineno
    ):
        return False
    body: ast.AST = node.body if isinstance(node, ast.Lambda) else node
    first = (getattr(body, "lineno", 0), getattr(body, "col_offset", 0))
    last = (getattr(body, "end_lineno", 0), getattr(body, "end_col_offset", 0))
    return all(
        first <= (line, column) and (end, end_column) <= last
        for line, end, column, end_column in spans
    )


def _first_line(node: ast.AST) -> int:
    """Decorators are part of what is compiled."""
    decorators = getattr(node, "decorator_list", [])
    return int(min(part.lineno for part in [node, *decorators]))
