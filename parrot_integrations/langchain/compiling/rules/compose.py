"""Rules for runnables that put others together: sequence, parallel, assign, pick, map."""

from functools import partial
from typing import Any

from langchain_core.runnables import (
    RouterRunnable,
    RunnableAssign,
    RunnableParallel,
    RunnablePassthrough,
    RunnablePick,
    RunnableSequence,
)
from langchain_core.runnables.base import RunnableEach

from parrot_integrations.langchain.compiling.barrier import Barrier
from parrot_integrations.langchain.compiling.planner import Planner, StepContext, rule
from parrot_integrations.langchain.compiling.rules.inputs import as_dict
from parrot_integrations.planning.structured import JsonValue
from parrot_integrations.planning.values import BreakError, need


@rule(RunnableSequence)
def sequence(
    planner: Planner, runnable: RunnableSequence[Any, Any], value: Any, context: StepContext
) -> Any:
    """Step by step; only the first step gets the keyword arguments, as in `RunnableSequence.invoke`."""
    return _steps(planner, runnable, value, context=context, first=0)


def _steps(
    planner: Planner,
    runnable: RunnableSequence[Any, Any],
    value: Any,
    *,
    context: StepContext,
    first: int,
) -> Any:
    """The steps from `first` on, and again where a step turns out to give something else."""
    for index, step in enumerate(runnable.steps[first:], start=first):
        at = context.at("steps", index, kwargs=context.kwargs if index == 0 else None)
        value = planner.step(step, value, at)
        rest = partial(_steps, planner, runnable, context=context, first=index + 1)
        planner.revise(at, context, rest)
    return value


@rule(RunnableParallel)
def parallel(
    planner: Planner, runnable: RunnableParallel[Any], value: Any, context: StepContext
) -> Any:
    """Every branch gets the same input; `RunnableParallel` drops the keyword arguments."""
    given: dict[str, Any] = {}
    for key, step in runnable.steps__.items():
        given[key] = planner.step(step, value, context.at("steps", key))
        planner.revise(context.at("steps", key), context, partial(_with, given, key))
    return dict(given)


def _with(given: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """All that is given now, one of it another than before."""
    given[key] = value
    return dict(given)


@rule(RunnableAssign)
def assign(planner: Planner, runnable: RunnableAssign, value: Any, context: StepContext) -> Any:
    """The input, and over it what the mapper adds."""
    given, inside = as_dict(value), context.at("mapper", kwargs=context.kwargs)
    added = planner.step(runnable.mapper, value, inside)
    planner.revise(inside, context, lambda other: {**given, **other})
    return {**given, **as_dict(added)}


@rule(RunnablePick)
def pick(planner: Planner, runnable: RunnablePick, value: Any, context: StepContext) -> Any:
    """One key's value, or the part of the dict that a list of keys names."""
    if isinstance(value, JsonValue) and isinstance(runnable.keys, str):
        return value.item(runnable.keys)
    value = as_dict(value)
    if isinstance(runnable.keys, str):
        return value.get(runnable.keys)
    return {key: value[key] for key in runnable.keys if key in value} or None


@rule(RunnablePassthrough)
def passthrough(
    planner: Planner, runnable: RunnablePassthrough[Any], value: Any, context: StepContext
) -> Any:
    """The input as it is; a function given to it is user code."""
    if runnable.func is not None or runnable.afunc is not None:
        raise BreakError("calls a function of yours")
    return value


@rule(Barrier)
def barrier(planner: Planner, runnable: Barrier, value: Any, context: StepContext) -> Any:
    """Nothing crosses it."""
    raise BreakError(
        "is a barrier, as you asked for",
        "What comes after it is planned when the run has passed it.",
    )


@rule(RunnableEach)
def each(
    planner: Planner, runnable: RunnableEach[Any, Any], value: Any, context: StepContext
) -> Any:
    """`.map()`: once per element, where the list's length is known."""
    if type(value) is not list:
        raise BreakError("maps over something whose length is not known yet")
    inside = context.at("bound", kwargs=context.kwargs)
    return [
        planner.step(runnable.bound, item, inside.element(index))
        for index, item in enumerate(value)
    ]


@rule(RouterRunnable)
def router(
    planner: Planner, runnable: RouterRunnable[Any], value: Any, context: StepContext
) -> Any:
    """The runnable that the input's `key` names gets the input's `input`."""
    key = need(as_dict(value).get("key"))
    if type(key) is not str or key not in runnable.runnables or "input" not in value:
        raise BreakError("gets something else than a key that it knows and an input")
    return planner.step(runnable.runnables[key], value["input"], context.at("runnables", key))
