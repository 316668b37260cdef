"""Where a step is: on the way to it from the whole runnable, and in the user's files.

All of it is read from what LangChain's own classes keep, and no code of the user's runs for it.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

from langchain_core.runnables import (
    RouterRunnable,
    RunnableAssign,
    RunnableBinding,
    RunnableBranch,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableEach
from langchain_core.runnables.retry import RunnableRetry

_FUNCTIONS = ("func", "afunc", "coroutine", "_transform", "_atransform")
_METHODS = ("invoke", "ainvoke", "transform", "_run", "_get_relevant_documents", "parse")
_LIBRARIES = ("langchain", "langgraph", "parrot_integrations")
_NAMED = {"steps", "branches", "runnables", "alternatives"}

Path = tuple[int | str, ...]


def name_of(runnable: Any) -> str:
    """What the user calls a step: the name that they gave it, its function's, or its class's."""
    given = vars(runnable).get("name") if hasattr(runnable, "__dict__") else None
    if type(given) is str:
        return given
    if isinstance(runnable, RunnableLambda | RunnableGenerator):
        return next(
            ("lambda" for code in _codes(runnable) if code.co_name == "<lambda>"), "function"
        )
    return type(runnable).__name__


def location_of(runnable: Any) -> str:
    """`file:line` of a step's function, condition or class; empty where it is a library's."""
    return next(map(_place, _codes(runnable)), "")


def step_of(wholes: Mapping[Path, Any], path: Path) -> str:
    """The way to a step, as `step 2 of 3 > texts > step 1 of 2`.

    Args:
        wholes: by the paths that they begin, the whole runnable, or a graph's nodes.
        path: the step's `StepContext.place`.
    """
    in_node = path[:1] == ("nodes",)
    words, names = [f"node {path[1]}"] if in_node else [], [*path[2 if in_node else 0 :]]
    root = wholes.get(path[:2] if in_node else ())
    while names:
        kind, *names = names
        name = names.pop(0) if kind in _NAMED and names else None
        words += _words(root, kind, name)
        root = _inside(root, str(kind), name)
    return " > ".join(words)


def _words(root: Any, kind: int | str, name: int | str | None) -> list[str]:
    if kind == "bound":
        return ["each"] if isinstance(root, RunnableEach) else []
    if kind in ("mapper", "runnable", "default"):
        return []
    if kind == "branches":
        return ["default" if name == "default" else f"branch {int(name or 0) + 1}"]
    if kind == "steps" and isinstance(name, int):
        count = f" of {len(root.steps)}" if isinstance(root, RunnableSequence) else ""
        return [f"step {name + 1}{count}"]
    return [str(kind if name is None else name)]


_INSIDE: dict[str, tuple[type | tuple[type, ...], Callable[[Any, Any], Any]]] = {
    "bound": ((RunnableEach, RunnableBinding, RunnableRetry), lambda whole, _: whole.bound),
    "mapper": (RunnableAssign, lambda whole, _: whole.mapper),
    "runnable": (RunnableWithFallbacks, lambda whole, _: whole.runnable),
    "runnables": (RouterRunnable, lambda whole, name: whole.runnables[name]),
    "branches": (
        RunnableBranch,
        lambda whole, name: whole.default if name == "default" else whole.branches[name][1],
    ),
}


def _inside(whole: Any, kind: str, name: Any) -> Any:
    """The part that a path goes on into; None where that is not known."""
    if isinstance(whole, RunnableSequence) and isinstance(name, int) and name < len(whole.steps):
        return whole.steps[name]
    if isinstance(whole, RunnableParallel):
        return whole.steps__.get(name)
    types, part = _INSIDE.get(kind, ((), lambda *_: None))
    return part(whole, name) if isinstance(whole, types) else None


def _codes(runnable: Any) -> Iterator[CodeType]:
    """The code that a step consists of, the most telling first."""
    kept = vars(runnable) if hasattr(runnable, "__dict__") else {}
    for name in _FUNCTIONS:
        yield from code_of(kept.get(name))
    if isinstance(runnable, RunnableBranch):
        for condition, _ in runnable.branches:
            yield from _codes(condition)
    kind = type(runnable)
    if not kind.__module__.startswith(_LIBRARIES):
        for name in _METHODS:
            yield from code_of(vars(kind).get(name))


def code_of(function: Any) -> Iterator[CodeType]:
    """The code of a Python function, method or partial; none of anything else."""
    if isinstance(function, partial):
        function = function.func
    if isinstance(function, MethodType):
        function = function.__func__
    if isinstance(function, FunctionType):
        yield function.__code__


def _place(code: CodeType) -> str:
    file = code.co_filename
    if "ipykernel_" in file or file.startswith("<ipython-input"):
        return f"a notebook cell, line {code.co_firstlineno}"
    return f"{file.removeprefix(os.getcwd() + os.sep)}:{code.co_firstlineno}"
