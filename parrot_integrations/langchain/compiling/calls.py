"""Whether a step could make LLM calls, as far as that can be seen without running it."""

from collections.abc import Iterator
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

from langchain_core.language_models import BaseLanguageModel
from langchain_core.runnables import (
    RouterRunnable,
    Runnable,
    RunnableAssign,
    RunnableBranch,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase, RunnableEachBase
from langchain_core.runnables.configurable import RunnableConfigurableAlternatives

from parrot_integrations.planning.values import is_a

_WHOLE = {"Chain", "Pregel"}


def makes_calls(step: Any) -> bool:
    """Whether a model, a graph or a classic chain is in a step, or in what its function mentions."""
    seen: set[int] = set()
    stack = [step]
    while stack:
        if id(part := stack.pop()) in seen:
            continue
        seen.add(id(part))
        if is_a(part, BaseLanguageModel) or _is_whole(part):
            return True
        stack += _parts(part)
    return False


def _is_whole(part: Any) -> bool:
    """Whether it is a graph or chain of a library that need not be installed."""
    return any(kind.__name__ in _WHOLE and _is_library(kind) for kind in type(part).__mro__)


def _is_library(kind: Any) -> bool:
    return str(kind.__module__).startswith(("langchain", "langgraph"))


def _parts(part: Any) -> Iterator[Any]:
    if is_a(part, Runnable):
        yield from _steps(part)
    elif type(part) is FunctionType:
        yield from _mentioned(part)
    elif type(part) is MethodType:
        yield part.__func__
        yield from _stored(part.__self__).values()
    elif type(part) is dict:
        yield from part.values()
    elif type(part) in (list, tuple):
        yield from part


def _stored(instance: Any) -> dict[str, Any]:
    """What an instance stores, where it stores it as instances do."""
    try:
        stored = object.__getattribute__(instance, "__dict__")
    except AttributeError:
        return {}
    return stored if type(stored) is dict else {}


def _steps(part: Any) -> Iterator[Any]:
    """What a runnable of LangChain's puts together."""
    if isinstance(part, RunnableSequence):
        yield from part.steps
    elif isinstance(part, RunnableParallel):
        yield from part.steps__.values()
    elif isinstance(part, RunnableAssign):
        yield part.mapper
    elif isinstance(part, RunnableBindingBase | RunnableEachBase):
        yield part.bound
    elif isinstance(part, RunnableWithFallbacks):
        yield from part.runnables
    elif isinstance(part, RunnableBranch):
        yield from (part.default, *(taken for _, taken in part.branches))
    elif isinstance(part, RouterRunnable):
        yield from part.runnables.values()
    elif isinstance(part, RunnableLambda | RunnableGenerator):
        yield from (vars(part).get(name) for name in ("func", "afunc", "_transform", "_atransform"))
    else:
        yield from _configurable(part)


def _configurable(part: Any) -> Iterator[Any]:
    yield vars(part).get("default")
    if isinstance(part, RunnableConfigurableAlternatives):
        yield from part.alternatives.values()


def _mentioned(function: FunctionType) -> Iterator[Any]:
    """What the names in a function stand for, where that is a runnable or a function beside it."""
    names = set(_names(function.__code__))
    values = [function.__globals__[name] for name in names if name in function.__globals__]
    values += [_content(cell) for cell in function.__closure__ or ()]
    for value in values:
        beside = type(value) is FunctionType and value.__module__ == function.__module__
        if beside or is_a(value, Runnable) or type(value) in (dict, list, tuple):
            yield value


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is not bound yet
        return None
