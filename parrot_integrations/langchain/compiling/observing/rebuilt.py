"""A runnable rebuilt with observers around its steps, wherever a plan may go through it."""

from collections.abc import Callable
from copy import copy
from types import FunctionType, MethodType
from typing import Any, cast

from langchain_core.runnables import (
    RouterRunnable,
    Runnable,
    RunnableAssign,
    RunnableBinding,
    RunnableBranch,
    RunnableConfig,
    RunnableLambda,
    RunnableParallel,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableEach
from langchain_core.runnables.configurable import (
    DynamicRunnable,
    RunnableConfigurableAlternatives,
    RunnableConfigurableFields,
)
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.runnables.retry import RunnableRetry

from parrot_integrations.langchain.compiling.listeners import Factory, only_listens
from parrot_integrations.langchain.compiling.observing.native import current
from parrot_integrations.langchain.compiling.observing.observed import Observed, ObservedMapper
from parrot_integrations.langchain.compiling.observing.returning import reporting
from parrot_integrations.langchain.compiling.planner import StepPath, exact_type


def observed(
    runnable: Runnable[Any, Any],
    place: StepPath = (),
    *,
    outer: StepPath | None = None,
    is_element: bool = True,
) -> Observed:
    """A runnable with observers around it and each step inside that a plan may go through.

    A step's place is that of `StepContext.place`; `outer` is that of the step around it.
    """

    def inside(step: Runnable[Any, Any], *where: int | str, is_element: bool = False) -> Observed:
        return observed(step, place + where, outer=place, is_element=is_element)

    rebuild = _REBUILT.get(exact_type(runnable))
    copied = rebuild(runnable, inside) if rebuild else runnable
    kind = ObservedMapper if place[-1:] == ("mapper",) else Observed
    return kind(
        bound=copied,
        place=place,
        outer=outer,
        is_element=is_element,
        inner=copied is not runnable,
    )


Inside = Callable[..., Observed]
"""Makes the observer of a step inside: from the step, where it is, and whether it is an element."""


class ObservedDynamic(DynamicRunnable[Any, Any]):
    """A configurable runnable whose choice is observed, whichever the configuration makes it."""

    original: DynamicRunnable[Any, Any]
    inside: Inside

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        """The original's; maps are named after what they map."""
        return self.original.get_name(suffix, name=name)

    def _prepare(
        self, config: RunnableConfig | None = None
    ) -> tuple[Runnable[Any, Any], RunnableConfig]:
        """The original's choice; its default stays recognizable, for that is batched as a whole."""
        prepared, config = self.original.prepare(config)
        if prepared is self.original.default:
            return self.default, config
        return self.inside(prepared, "prepared"), config


class ObservedRetry(RunnableRetry[Any, Any]):  # type: ignore[no-redef]
    """Retries, which in a batch give each attempt the run around theirs for a parent.

    Which inputs are tried, only the configurations tell that they are about to give away.
    """

    place: StepPath

    def _merge_configs(self, *configs: RunnableConfig | None) -> RunnableConfig:
        merged = super()._merge_configs(*configs)
        run = current()
        found = (run.inherited(config, self.place) for config in configs)
        elements = next((known for known in found if known is not None), None)
        return merged if elements is None else run.named(merged, None, self.place, elements)


def _copied(original: Any, **parts: Any) -> Runnable[Any, Any]:
    """As it is but for these parts; nothing is validated, and nothing of the user's runs."""
    if type(original) is RunnableLambda:  # which is no pydantic model
        copied = copy(original)
        vars(copied).update(parts)
        return copied
    return cast("Runnable[Any, Any]", original.model_copy(update=parts))


def _sequence(runnable: RunnableSequence[Any, Any], inside: Inside) -> Runnable[Any, Any]:
    steps = [inside(step, "steps", index) for index, step in enumerate(runnable.steps)]
    return _copied(runnable, first=steps[0], middle=steps[1:-1], last=steps[-1])


def _parallel(runnable: RunnableParallel[Any], inside: Inside) -> Runnable[Any, Any]:
    steps = {key: inside(step, "steps", key) for key, step in runnable.steps__.items()}
    return _copied(runnable, steps__=steps)


def _binding(runnable: RunnableBinding[Any, Any], inside: Inside) -> Runnable[Any, Any]:
    if not all(map(only_listens, runnable.config_factories)):
        return runnable
    factories = [_unaware(factory) for factory in runnable.config_factories]
    return _copied(runnable, bound=inside(runnable.bound, "bound"), config_factories=factories)


def _unaware(factory: Factory) -> Factory:
    """It hands its configuration on to listeners of the user's, who must not see the observers."""
    return lambda config: factory(current().unnamed(config))


def _retry(runnable: RunnableRetry[Any, Any], inside: Inside) -> Runnable[Any, Any]:
    bound = inside(runnable.bound, "bound")
    return ObservedRetry.model_construct(**{**vars(runnable), "bound": bound, "place": bound.outer})


def _fallbacks(runnable: RunnableWithFallbacks[Any, Any], inside: Inside) -> Runnable[Any, Any]:
    others = [inside(other, "fallbacks", index) for index, other in enumerate(runnable.fallbacks)]
    return _copied(runnable, runnable=inside(runnable.runnable, "runnable"), fallbacks=others)


def _branch(runnable: RunnableBranch[Any, Any], inside: Inside) -> Runnable[Any, Any]:
    branches = [
        (condition, inside(taken, "branches", index))
        for index, (condition, taken) in enumerate(runnable.branches)
    ]
    default = inside(runnable.default, "branches", "default")
    return _copied(runnable, branches=branches, default=default)


def _router(runnable: RouterRunnable[Any], inside: Inside) -> Runnable[Any, Any]:
    runnables = runnable.runnables.items()
    return _copied(
        runnable, runnables={key: inside(step, "runnables", key) for key, step in runnables}
    )


def _lambda(runnable: RunnableLambda[Any, Any], inside: Inside) -> Runnable[Any, Any]:
    def returned(step: Runnable[Any, Any]) -> Observed:
        return inside(step, "returned")

    functions = {name: vars(runnable).get(name) for name in ("func", "afunc")}
    reports = {
        name: reporting(function, returned)
        for name, function in functions.items()
        if type(function) in (FunctionType, MethodType)
    }
    return _copied(runnable, **reports)


def _dynamic(runnable: DynamicRunnable[Any, Any], inside: Inside) -> Runnable[Any, Any]:
    default = inside(runnable.default, "prepared")
    return ObservedDynamic.model_construct(default=default, original=runnable, inside=inside)


_REBUILT: dict[type, Callable[[Any, Inside], Runnable[Any, Any]]] = {
    RunnableSequence: _sequence,
    RunnableParallel: _parallel,
    RunnableAssign: lambda assign, inside: _copied(assign, mapper=inside(assign.mapper, "mapper")),
    RunnableEach: lambda each, inside: _copied(
        each, bound=inside(each.bound, "bound", is_element=True)
    ),
    RunnableBinding: _binding,
    RunnableWithMessageHistory: _binding,
    RunnableRetry: _retry,
    RunnableWithFallbacks: _fallbacks,
    RunnableBranch: _branch,
    RouterRunnable: _router,
    RunnableLambda: _lambda,
    RunnableConfigurableFields: _dynamic,
    RunnableConfigurableAlternatives: _dynamic,
}
