"""Rules for runnables that stand for others: bindings, retries, fallbacks, branches, configurables."""

from dataclasses import replace
from typing import Any

from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableBinding,
    RunnableBranch,
    RunnableWithFallbacks,
)
from langchain_core.runnables.configurable import (
    DynamicRunnable,
    RunnableConfigurableAlternatives,
    RunnableConfigurableFields,
)
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.runnables.retry import RunnableRetry

from parrot_integrations.langchain.compiling.listeners import only_listens
from parrot_integrations.langchain.compiling.planner import Planner, StepContext, is_known, rule
from parrot_integrations.langchain.compiling.rules.functions import is_true
from parrot_integrations.planning.values import BreakError, Entry, NotYetError, Unknown

_CHAT_MODEL_BINDING = "langchain_core.language_models.chat_models._ChatModelBinding"
"""By its name, for it is private: where there is none, no model is bound by it."""


@rule(RunnableBinding, RunnableWithMessageHistory, _CHAT_MODEL_BINDING)
def binding(
    planner: Planner, runnable: RunnableBinding[Any, Any], value: Any, context: StepContext
) -> Any:
    """Its keyword arguments and its configurable fields go to what it binds.

    That of a history is a chain that reads it, which is a break, and calls the rest with it.
    """
    if not all(map(only_listens, runnable.config_factories)):
        raise BreakError("makes its configuration by a function of yours")
    inside = context.at("bound", kwargs={**runnable.kwargs, **context.kwargs})
    configurable = {**runnable.config.get("configurable", {}), **context.configurable}
    inside = inside.limited(planner.plan, runnable.config.get("max_concurrency"))
    given = planner.step(runnable.bound, value, replace(inside, configurable=configurable))
    planner.revise(inside, context, lambda other: other)
    return given


@rule(RunnableRetry)
def retry(
    planner: Planner, runnable: RunnableRetry[Any, Any], value: Any, context: StepContext
) -> Any:
    """The first attempt; what is tried again runs anew."""
    inside = context.at("bound", kwargs={**runnable.kwargs, **context.kwargs})
    return planner.step(runnable.bound, value, inside)


@rule(RunnableWithFallbacks)
def fallbacks(
    planner: Planner, runnable: RunnableWithFallbacks[Any, Any], value: Any, context: StepContext
) -> Any:
    """The main runnable; a fallback, and what comes after it, is planned when the run enters it."""
    results = planner.revisions.setdefault(context.key, [])
    for index, other in enumerate(runnable.fallbacks):
        inside = context.at("fallbacks", index, kwargs=context.kwargs)
        given = _FROM_THE_RUN if runnable.exception_key else value
        results.append(Unknown())
        _on_entry(planner, other, given, inside, results[-1])
    return planner.step(runnable.runnable, value, context.at("runnable", kwargs=context.kwargs))


@rule(RunnableBranch)
def branch(
    planner: Planner, runnable: RunnableBranch[Any, Any], value: Any, context: StepContext
) -> Any:
    """The branch that is taken, where reading the conditions shows it, else when the run enters it."""
    known = _taken(planner, runnable, value, context)
    if known is not None:
        name, taken = known
        return planner.step(taken, value, context.at("branches", name, kwargs=context.kwargs))
    result = Unknown()
    stop = BreakError(
        "decides by conditions of yours, whose outcome only the run knows",
        "The branch that is taken is planned when the run enters it.",
    )
    planner.stop(runnable, value, context, stop, result)
    choices: dict[int | str, Runnable[Any, Any]] = {"default": runnable.default}
    choices |= {index: taken for index, (_, taken) in enumerate(runnable.branches)}
    for name, taken in choices.items():
        inside = context.at("branches", name, kwargs=context.kwargs)
        _on_entry(planner, taken, value, inside, result)
    return result


def _taken(
    planner: Planner, runnable: RunnableBranch[Any, Any], value: Any, context: StepContext
) -> tuple[int | str, Runnable[Any, Any]] | None:
    """The first branch whose condition is true; None where only the run knows."""
    try:
        for index, (condition, taken) in enumerate(runnable.branches):
            if is_true(planner, condition, value, context.at("conditions", index)):
                return index, taken
    except (BreakError, NotYetError):
        return None
    return "default", runnable.default


_FROM_THE_RUN = object()


def _on_entry(
    planner: Planner,
    runnable: Runnable[Any, Any],
    value: Any,
    context: StepContext,
    result: Unknown,
) -> None:
    """Plan a runnable when the run enters it, with the run's own input if that is asked for."""
    entered = Entry()
    planner.plan.unknowns[*context.key, "entered"] = entered

    def plan() -> None:
        given = entered.value if value is _FROM_THE_RUN else value
        result.settle(planner.step(runnable, given, context))

    entered.then(plan)


@rule(RunnableConfigurableFields, RunnableConfigurableAlternatives)
def configurable(
    planner: Planner, runnable: DynamicRunnable[Any, Any], value: Any, context: StepContext
) -> Any:
    """The runnable that the configuration makes of it, as `DynamicRunnable.prepare` finds it."""
    chosen: Runnable[Any, Any] = runnable
    configured = dict(context.configurable)
    while isinstance(chosen, DynamicRunnable):
        configured = {**(chosen.config or {}).get("configurable", {}), **configured}
        if type(chosen) is RunnableConfigurableFields:
            chosen = _with_fields(chosen, configured)
        elif type(chosen) is RunnableConfigurableAlternatives:
            chosen, configured = _alternative(chosen, configured)
        else:
            raise BreakError("is configured by a class of yours")
    inside = context.at("prepared", kwargs=context.kwargs)
    return planner.step(chosen, value, replace(inside, configurable=configured))


def _with_fields(
    runnable: RunnableConfigurableFields[Any, Any], configured: dict[str, Any]
) -> Runnable[Any, Any]:
    """The runnable with the fields that the configuration names, where making it is no user code."""
    ids = {field.id for field in runnable.fields.values()}
    plain = all(isinstance(field, ConfigurableField) for field in runnable.fields.values())
    if plain and not ids & set(configured):
        return runnable.default
    if isinstance(runnable.default, DynamicRunnable) or not is_known(runnable.default):
        raise BreakError("configures something that can't be planned")
    prepared, _ = runnable.prepare({"configurable": configured})
    return prepared


def _alternative(
    runnable: RunnableConfigurableAlternatives[Any, Any], configured: dict[str, Any]
) -> tuple[Runnable[Any, Any], dict[str, Any]]:
    """The alternative that the configuration names, and the configuration that it gets."""
    which = configured.get(runnable.which.id, runnable.default_key)
    choices = {**runnable.alternatives, runnable.default_key: runnable.default}
    chosen = choices.get(which)
    if not isinstance(chosen, Runnable):
        raise BreakError(f"makes its alternative '{which}' by a function of yours")
    if runnable.prefix_keys:
        prefix = f"{runnable.which.id}=={which}/"
        configured = {key.removeprefix(prefix): v for key, v in configured.items()}
    return chosen, configured
