"""The source that is read is exactly this function's, or none."""

import ast
import linecache
import textwrap
from functools import wraps
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from parrot_integrations.planning.reading.problems import UnreadableError
from parrot_integrations.planning.reading.source import source_of
from tests.integrations.planning.reading.written import written

several = (lambda x: x + "1"), (lambda x: x + "2"), (lambda x, y="3": x + y)
nested = lambda x: lambda y: x + y  # noqa: E731
same = [lambda x: x, lambda x: x]


def found(function: Any) -> str:
    return ast.unparse(source_of(function.__code__))


def test_several_lambdas_on_a_line_are_told_apart() -> None:
    assert [found(one) for one in several] == [
        "lambda x: x + '1'",
        "lambda x: x + '2'",
        "lambda x, y='3': x + y",
    ]
    assert found(nested) == "lambda x: lambda y: x + y"
    assert found(nested("a")) == "lambda y: x + y"
    assert [found(one) for one in same] == ["lambda x: x"] * 2


def test_functions_are_found_wherever_they_stand() -> None:
    def decorated(function: Any) -> Any:
        @wraps(function)
        def wrapper(x: str) -> Any:
            return function(x)

        return wrapper

    @decorated
    def inner(x: str) -> str:
        """Says it."""
        return f"{x}!"

    class Holder:
        async def method(self, x: str) -> str:
            return x

        private = staticmethod(lambda x: x.__name)

    assert found(inner).startswith("@wraps(function)\ndef wrapper")
    assert found(inner.__wrapped__).startswith("@decorated\ndef inner")
    assert found(Holder.method).startswith("async def method")
    assert found(Holder.private) == "lambda x: x.__name"


def test_code_without_a_source_has_none() -> None:
    namespace: dict[str, Any] = {}
    exec("def f(x):\n    return x", namespace)
    with pytest.raises(UnreadableError, match="no source"):
        source_of(namespace["f"].__code__)


def imported(path: Path, source: str) -> FunctionType:
    path.write_text(textwrap.dedent(source))
    namespace: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    function = namespace["f"]
    assert isinstance(function, FunctionType)
    return function


@pytest.mark.parametrize(
    "changed",
    [
        "f = lambda x: x + '2'",
        "f = lambda y: y + '1'",
        "f = lambda x: x.y + '1'",
        "f = lambda  x: x + '1'",
        "f = lambda x, *y: x + '1'",
        "\nf = lambda x: x + '1'",
        "f = lambda x: x + '1",
        "",
    ],
)
def test_a_file_that_has_changed_is_not_read(changed: str, tmp_path: Path) -> None:
    path = tmp_path / f"changing{len(changed)}.py"
    function = imported(path, "f = lambda x: x + '1'")
    path.write_text(changed)
    with pytest.raises(UnreadableError, match=r"has changed|no source|can't be parsed"):
        source_of(function.__code__)


def test_a_file_that_has_not_changed_is_read(tmp_path: Path) -> None:
    function = imported(tmp_path / "still.py", "f = lambda x: x + '1'")
    assert found(function) == "lambda x: x + '1'"


def test_code_made_of_other_code_is_not_read() -> None:
    function = written("def f(x):\n    return x + '1'")
    other = function.__code__.replace(co_consts=(None, "2"))
    assert found(function) == "def f(x):\n    return x + '1'"
    with pytest.raises(UnreadableError, match="has changed"):
        source_of(other)


def test_futures_and_warnings_of_a_source_are_its_own(recwarn: pytest.WarningsRecorder) -> None:
    source = "from __future__ import annotations\ndef f(x: Missing) -> str:\n    return '\\d' + x"
    with pytest.warns(Warning, match="invalid escape"):
        function = written(source)
    recwarn.clear()
    assert found(function).startswith("def f(x: Missing)")
    assert len(recwarn) == 0


def test_a_cell_of_a_notebook_may_await() -> None:
    source = "import asyncio\nawait asyncio.sleep(0)\nf = lambda x: x"
    linecache.cache["<cell>"] = (len(source), None, source.splitlines(keepends=True), "<cell>")
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(source, "<cell>", "exec", flags)
    (function,) = [each for each in code.co_consts if hasattr(each, "co_code")]
    assert ast.unparse(source_of(function)) == "lambda x: x"


def test_calls_of_what_a_module_imports_are_found() -> None:
    source = """
try:
    import json
except ImportError:
    pass
from os import path as where

f = lambda x: json.loads(x).get("a") + where.join(x)
"""
    assert found(written(source)).startswith("lambda x: json.loads(x)")
