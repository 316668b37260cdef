"""Rules for runnables that put others together: sequence, parallel, assign, pick, map, binding."""

from typing import Any

from langchain_core.language_models.chat_models import _ChatModelBinding
from langchain_core.runnables import (
    RunnableAssign,
    RunnableBinding,
    RunnableParallel,
    RunnablePassthrough,
    RunnablePick,
    RunnableSequence,
)
from langchain_core.runnables.base import RunnableEach

from parrot_integrations.langchain.planner import Planner, rule
from parrot_integrations.planning.values import UNKNOWN


@rule(RunnableSequence)
def sequence(
    planner: Planner, runnable: RunnableSequence[Any, Any], value: Any, kwargs: dict[str, Any]
) -> Any:
    """Step by step; only the first step gets the keyword arguments, as in `RunnableSequence.invoke`."""
    for step in runnable.steps:
        value = planner.step(step, value, kwargs)
        kwargs = {}
    return value


@rule(RunnableParallel)
def parallel(
    planner: Planner, runnable: RunnableParallel[Any], value: Any, kwargs: dict[str, Any]
) -> Any:
    """Every branch gets the same input; `RunnableParallel` drops the keyword arguments."""
    return {key: planner.step(step, value, {}) for key, step in runnable.steps__.items()}


@rule(RunnableAssign)
def assign(planner: Planner, runnable: RunnableAssign, value: Any, kwargs: dict[str, Any]) -> Any:
    """The input, and over it what the mapper adds."""
    if not isinstance(value, dict):
        return planner.stop(runnable, "gets something that is not a dict")
    added = planner.step(runnable.mapper, value, kwargs)
    return {**value, **added} if isinstance(added, dict) else UNKNOWN


@rule(RunnablePick)
def pick(planner: Planner, runnable: RunnablePick, value: Any, kwargs: dict[str, Any]) -> Any:
    """One key's value, or the part of the dict that a list of keys names."""
    if not isinstance(value, dict):
        return planner.stop(runnable, "gets something that is not a dict")
    if isinstance(runnable.keys, str):
        return value.get(runnable.keys)
    return {key: value[key] for key in runnable.keys if key in value} or None


@rule(RunnablePassthrough)
def passthrough(
    planner: Planner, runnable: RunnablePassthrough[Any], value: Any, kwargs: dict[str, Any]
) -> Any:
    """The input as it is; a function given to it is user code."""
    if runnable.func is not None or runnable.afunc is not None:
        return planner.stop(runnable, "calls a function of yours")
    return value


@rule(RunnableEach)
def each(
    planner: Planner, runnable: RunnableEach[Any, Any], value: Any, kwargs: dict[str, Any]
) -> Any:
    """`.map()`: once per element, where the list's length is known."""
    if not isinstance(value, list):
        return planner.stop(runnable, "maps over something whose length is not known yet")
    return [planner.step(runnable.bound, item, kwargs) for item in value]


@rule(RunnableBinding, _ChatModelBinding)
def binding(
    planner: Planner, runnable: RunnableBinding[Any, Any], value: Any, kwargs: dict[str, Any]
) -> Any:
    """Its keyword arguments go to what it binds."""
    if runnable.config_factories:
        return planner.stop(runnable, "has listeners, which may change the configuration")
    if "configurable" in runnable.config:
        return planner.stop(runnable, "sets configurable fields")
    return planner.step(runnable.bound, value, {**runnable.kwargs, **kwargs})
