"""A runnable rebuilt with observers around its steps, wherever a plan may go through it."""

from collections.abc import Callable
from typing import Any, cast

from langchain_core.runnables import (
    RouterRunnable,
    Runnable,
    RunnableAssign,
    RunnableBinding,
    RunnableBranch,
    RunnableParallel,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableEach
from langchain_core.runnables.retry import RunnableRetry

from parrot_integrations.langchain.compiling.observed import Observed, ObservedMapper
from parrot_integrations.langchain.compiling.planner import StepPath, exact_type


def observed(
    runnable: Runnable[Any, Any], place: StepPath = (), *, is_element: bool = True
) -> Observed:
    """A runnable with observers around it and each step inside that a plan may go through.

    A step's place is that of `StepContext.place`.
    """

    def inside(step: Runnable[Any, Any], *where: int | str, is_element: bool = False) -> Observed:
        return observed(step, place + where, is_element=is_element)

    parts = _PARTS.get(exact_type(runnable))
    copied = _copied(runnable, parts(runnable, inside)) if parts else runnable
    kind = ObservedMapper if place[-1:] == ("mapper",) else Observed
    return kind(bound=copied, place=place, is_element=is_element)


Inside = Callable[..., Observed]


def _copied(runnable: Any, parts: dict[str, Any]) -> Runnable[Any, Any]:
    """As it is but for these parts; nothing is validated, and nothing of the user's runs."""
    return cast("Runnable[Any, Any]", runnable.model_copy(update=parts))


def _sequence(runnable: RunnableSequence[Any, Any], inside: Inside) -> dict[str, Any]:
    steps = [inside(step, "steps", index) for index, step in enumerate(runnable.steps)]
    return {"first": steps[0], "middle": steps[1:-1], "last": steps[-1]}


def _parallel(runnable: RunnableParallel[Any], inside: Inside) -> dict[str, Any]:
    return {"steps__": {key: inside(step, "steps", key) for key, step in runnable.steps__.items()}}


def _binding(runnable: RunnableBinding[Any, Any], inside: Inside) -> dict[str, Any]:
    return {} if runnable.config_factories else {"bound": inside(runnable.bound, "bound")}


def _branch(runnable: RunnableBranch[Any, Any], inside: Inside) -> dict[str, Any]:
    branches = [
        (condition, inside(taken, "branches", index))
        for index, (condition, taken) in enumerate(runnable.branches)
    ]
    return {"branches": branches, "default": inside(runnable.default, "branches", "default")}


def _router(runnable: RouterRunnable[Any], inside: Inside) -> dict[str, Any]:
    runnables = runnable.runnables.items()
    return {"runnables": {key: inside(step, "runnables", key) for key, step in runnables}}


_PARTS: dict[type, Callable[[Any, Inside], dict[str, Any]]] = {
    RunnableSequence: _sequence,
    RunnableParallel: _parallel,
    RunnableAssign: lambda assign, inside: {"mapper": inside(assign.mapper, "mapper")},
    RunnableEach: lambda each, inside: {"bound": inside(each.bound, "bound", is_element=True)},
    RunnableBinding: _binding,
    RunnableRetry: lambda retry, inside: {"bound": inside(retry.bound, "bound")},
    RunnableWithFallbacks: lambda main, inside: {"runnable": inside(main.runnable, "runnable")},
    RunnableBranch: _branch,
    RouterRunnable: _router,
}
