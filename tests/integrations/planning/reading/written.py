"""Functions written by tests, whose source is where Python looks for it."""

import linecache
from itertools import count
from types import FunctionType
from typing import Any

_numbers = count()


def written(source: str, name: str = "f", **outside: Any) -> FunctionType:
    """The function of this name in a module of this source."""
    filename = f"<written-{next(_numbers)}>"
    lines = source.splitlines(keepends=True)
    linecache.cache[filename] = (len(source), None, lines, filename)
    namespace: dict[str, Any] = dict(outside)
    exec(compile(source, filename, "exec", dont_inherit=True), namespace)
    function = namespace[name]
    assert isinstance(function, FunctionType)
    return function
