"""Rules for runnables that stand for others: bindings, retries, fallbacks, branches, configurables."""

from dataclasses import replace
from typing import Any

from langchain_core.language_models.chat_models import _ChatModelBinding
from langchain_core.runnables import (
    Runnable,
    RunnableBinding,
    RunnableBranch,
    RunnableConfig,
    RunnableWithFallbacks,
)
from langchain_core.runnables.configurable import (
    DynamicRunnable,
    RunnableConfigurableAlternatives,
    RunnableConfigurableFields,
)
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.runnables.retry import RunnableRetry

from parrot_integrations.langchain.compiling.planner import Planner, StepContext, find_rule, rule
from parrot_integrations.planning.values import BreakError, Unknown


@rule(RunnableBinding, _ChatModelBinding)
def binding(
    planner: Planner, runnable: RunnableBinding[Any, Any], value: Any, context: StepContext
) -> Any:
    """Its keyword arguments and its configurable fields go to what it binds."""
    if runnable.config_factories:
        raise BreakError("has listeners, which may change the configuration")
    inside = context.at("bound", kwargs={**runnable.kwargs, **context.kwargs})
    configurable = {**runnable.config.get("configurable", {}), **context.configurable}
    inside = inside.limited(planner.plan, runnable.config.get("max_concurrency"))
    return planner.step(runnable.bound, value, replace(inside, configurable=configurable))


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
    """The main runnable; if a fallback has to step in, it runs unplanned."""
    inside = context.at("runnable", kwargs=context.kwargs)
    return planner.step(runnable.runnable, value, inside)


@rule(RunnableBranch)
def branch(
    planner: Planner, runnable: RunnableBranch[Any, Any], value: Any, context: StepContext
) -> Any:
    """Conditions are user code: the branch is planned when the run enters it."""
    planner.plan.stop(
        runnable.get_name(),
        "decides by conditions of yours, which planning does not run",
        "The branch that is taken is planned when the run enters it.",
    )
    result = Unknown()
    choices: dict[int | str, Runnable[Any, Any]] = {"default": runnable.default}
    choices |= {index: taken for index, (_, taken) in enumerate(runnable.branches)}
    for name, taken in choices.items():
        inside = context.at("branches", name, kwargs=context.kwargs)
        _on_entry(planner, taken, value, inside, result)
    return result


def _on_entry(
    planner: Planner,
    runnable: Runnable[Any, Any],
    value: Any,
    context: StepContext,
    result: Unknown,
) -> None:
    entered = Unknown()
    planner.plan.unknowns[*context.key, "entered"] = entered
    entered.then(lambda: result.settle(planner.step(runnable, value, context)))


@rule(RunnableConfigurableFields)
def configurable_fields(
    planner: Planner,
    runnable: RunnableConfigurableFields[Any, Any],
    value: Any,
    context: StepContext,
) -> Any:
    """The runnable with the fields that the configuration names, where making it is no user code."""
    if isinstance(runnable.default, DynamicRunnable) or find_rule(runnable.default) is None:
        raise BreakError("configures something that can't be planned")
    configurable = _configurable(runnable, context)
    prepared, _ = runnable.prepare({"configurable": configurable})
    inside = context.at("default", kwargs=context.kwargs)
    return planner.step(prepared, value, replace(inside, configurable=configurable))


@rule(RunnableConfigurableAlternatives)
def alternatives(
    planner: Planner,
    runnable: RunnableConfigurableAlternatives[Any, Any],
    value: Any,
    context: StepContext,
) -> Any:
    """The alternative that the configuration names."""
    configurable = _configurable(runnable, context)
    which = configurable.get(runnable.which.id, runnable.default_key)
    choices = {**runnable.alternatives, runnable.default_key: runnable.default}
    chosen = choices.get(which)
    if not isinstance(chosen, Runnable):
        raise BreakError(f"makes its alternative '{which}' by a function of yours")
    if runnable.prefix_keys:
        prefix = f"{runnable.which.id}=={which}/"
        configurable = {key.removeprefix(prefix): v for key, v in configurable.items()}
    inside = context.at("alternatives", str(which), kwargs=context.kwargs)
    return planner.step(chosen, value, replace(inside, configurable=configurable))


def _configurable(runnable: DynamicRunnable[Any, Any], context: StepContext) -> dict[str, Any]:
    config = runnable.config or RunnableConfig()
    return {**config.get("configurable", {}), **context.configurable}


@rule(RunnableWithMessageHistory)
def message_history(
    planner: Planner, runnable: RunnableWithMessageHistory, value: Any, context: StepContext
) -> Any:
    """Reading the history is user code."""
    raise BreakError(
        "reads a history, which planning does not",
        "Compile the runnable inside it: RunnableWithMessageHistory(compile(chain), ...).",
    )
