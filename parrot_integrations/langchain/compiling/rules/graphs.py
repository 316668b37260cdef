"""Rules for what LangGraph makes nodes of; they name its classes, so that nothing is imported."""

from dataclasses import replace
from typing import Any

from langchain_core.runnables import Runnable

from parrot_integrations.langchain.compiling.planner import Planner, StepContext, rule
from parrot_integrations.langchain.compiling.rules.functions import planned_call
from parrot_integrations.planning.values import BreakError

_LIBRARIES = ("langchain.", "langgraph.")


@rule("langgraph._internal._runnable.RunnableCallable")
def node_function(planner: Planner, runnable: Any, value: Any, context: StepContext) -> Any:
    """What the function gives; a runnable gets the same input, as in `RunnableCallable.invoke`."""
    function = runnable.func or runnable.afunc
    if str(getattr(function, "__module__", "")).startswith(_LIBRARIES):
        raise BreakError("decides by itself what it asks, as the steps of an agent do")
    kwargs = {**runnable.kwargs, **context.kwargs}
    found = planned_call(planner, function, (value,), replace(context, kwargs=kwargs))
    if isinstance(found, Runnable) and runnable.recurse:
        return planner.step(found, value, context.at("returned"))
    return found


@rule("langgraph.graph.state.CompiledStateGraph", "langgraph.pregel.main.Pregel")
def graph(planner: Planner, runnable: Any, value: Any, context: StepContext) -> Any:
    """Its nodes run when its edges say so."""
    raise BreakError(
        "is a graph, whose nodes are planned when they start",
        "Give the graph itself to compile(); in a chain it runs as always.",
    )
