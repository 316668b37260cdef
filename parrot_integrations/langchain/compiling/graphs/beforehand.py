"""What is planned of a graph before it runs: nodes that it begins with, whose state is its input."""

import operator
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

from langchain_core.messages import convert_to_messages
from langchain_core.runnables import RunnableConfig
from langgraph.channels import BinaryOperatorAggregate, LastValue
from langgraph.constants import START
from langgraph.graph import add_messages
from langgraph.pregel import Pregel

from parrot_integrations.langchain.compiling.graphs.nodes import PreparedNode
from parrot_integrations.langchain.compiling.graphs.run import Task
from parrot_integrations.langchain.compiling.planner import Planner
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.values import Unknown

_BEHIND = "planned when it starts, or with all that is sent beside it when it is sent"
_OF_ITS_OWN = "a graph, whose nodes are planned when they start"

_NOTHING_BEFOREHAND = (
    "no call of it is known before it runs, as an agent's depend on what its tools give"
)


def beforehand(
    graph: Pregel[Any, Any, Any, Any],
    nodes: Mapping[str, PreparedNode],
    inputs: Sequence[Any],
    config: RunnableConfig,
) -> Plan:
    """The calls of the nodes that a run begins with, and notes on those that come later.

    It is the plan of a new thread: what a checkpoint holds is not looked at.
    """
    planner, number = Planner(), count()
    first = _first(graph)
    for name, node in nodes.items():
        if isinstance(node.runnable, Pregel):
            planner.plan.note(f"node '{name}'", _OF_ITS_OWN)
        elif node.makes_calls and name in first and node.node.mapper is None:
            for input in inputs:
                state = _state(graph, node, input)
                task = Task(name, node.runnable, state, config, next(number))
                planner.step(task.runnable, state, task.context(planner.plan))
        elif node.makes_calls:
            planner.plan.note(f"node '{name}'", _BEHIND)
    if not planner.plan.calls and not planner.plan.notes:
        planner.plan.note("the graph", _NOTHING_BEFOREHAND)
    return planner.plan


def _first(graph: Any) -> set[str]:
    """The nodes that surely come first: behind a condition only the run knows."""
    builder = getattr(graph, "builder", None)
    if builder is None:
        return {name for name, node in graph.nodes.items() if START in node.triggers}
    return {end for start, end in builder.edges if start == START}


def _state(graph: Any, node: PreparedNode, input: Any) -> Any:
    """What a node gets of the graph's input."""
    channels = node.node.channels
    if isinstance(channels, str) or not isinstance(input, dict):
        return input
    state = {name: _written(graph.channels[name], input, name) for name in channels}
    return {name: value for name, value in state.items() if value is not _NOTHING}


def _written(channel: Any, input: dict[str, Any], name: str) -> Any:
    """A channel's value after the input has been written; unknown where code of the user's says it."""
    if name not in input:
        return _NOTHING if type(channel) is LastValue else Unknown()
    if type(channel) is LastValue:
        return input[name]
    if type(channel) is not BinaryOperatorAggregate:
        return Unknown()
    added = _ADDED.get(channel.operator)
    return Unknown() if added is None else added(input[name])


_NOTHING = object()

_ADDED: dict[Any, Callable[[Any], Any]] = {
    operator.add: lambda value: value,
    add_messages: lambda value: convert_to_messages(value if type(value) is list else [value]),
}
"""What reducers of the libraries make of a first value."""
