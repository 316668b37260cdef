"""A graph whose nodes are planned: in all other respects the graph that it was made of."""

import logging
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from copy import copy
from dataclasses import replace
from functools import cache
from typing import Any, Self, TypeVar, cast

from langchain_core.runnables import Runnable, RunnableConfig, ensure_config
from langchain_core.runnables.config import merge_configs
from langgraph.pregel import Pregel

from parrot_backend.wire.protocol import Objective
from parrot_integrations.langchain.compiling.explaining import Explaining
from parrot_integrations.langchain.compiling.graphs.beforehand import beforehand
from parrot_integrations.langchain.compiling.graphs.nodes import (
    GraphPart,
    PreparedNode,
    planned_nodes,
)
from parrot_integrations.langchain.compiling.graphs.planning import Planning
from parrot_integrations.langchain.compiling.graphs.run import GraphRun, graph_run
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.session import OnSession

logger = logging.getLogger(__name__)

AnyGraph = Pregel[Any, Any, Any, Any]
Graph = TypeVar("Graph", bound=AnyGraph)


class PlannedGraph(Explaining, AnyGraph):
    """Stands before a graph's own class, and plans its runs; each has one session.

    LangGraph comes through `stream` or `astream` whatever is called. A graph that runs inside a node
    of another planned one is part of that one's run.
    """

    planning: Planning
    prepared: Mapping[str, PreparedNode]

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """`stream` of the graph, planned."""
        with graph_run(self.planning) as run:
            part = self._part(run, kwargs) if self.planning.ahead else self
            yield from super(PlannedGraph, part).stream(input, config, **kwargs)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncGenerator[Any, None]:
        """`astream` of the graph, planned."""
        with graph_run(self.planning) as run:
            part = self._part(run, kwargs) if self.planning.ahead else self
            items = super(PlannedGraph, part).astream(input, config, **kwargs)
            async with aclosing(cast("AsyncGenerator[Any, None]", items)):
                async for item in items:
                    yield item

    def plan(self, inputs: Sequence[Any], config: Any = None, kwargs: Any = None) -> Plan:
        """What is planned before runs of new threads begin; nothing is submitted."""
        try:
            given = merge_configs(self.config, config)
            return beforehand(self, self.prepared, inputs, ensure_config(given))
        except Exception:
            logger.exception("planning failed")
            return Plan()

    def _wanted(self) -> Objective | None:
        return self.planning.objective

    def _watched(self, on_session: OnSession) -> Runnable[Any, Any]:
        return planned(self, replace(self.planning, on_session=on_session))

    def _native(self) -> Runnable[Any, Any]:
        return planned(self, replace(self.planning, ahead=False))

    def copy(self, update: dict[str, Any] | None = None) -> Self:
        """See `Pregel.copy`; the copy's runs are planned as well."""
        return planned(super().copy(update), self.planning)

    def _part(self, run: GraphRun, kwargs: Mapping[str, Any]) -> Self:
        """This graph with nodes that belong to a run."""
        before = kwargs.get("interrupt_before") or self.interrupt_before_nodes
        after = kwargs.get("interrupt_after") or self.interrupt_after_nodes
        # What is behind an interrupt somebody wants to look at first. What has a cache may not run.
        ahead = not before and not after and self.cache_policy is None
        part = copy(self)
        part.nodes = planned_nodes(GraphPart(run, self.prepared, ahead))
        return part


def planned(graph: Graph, planning: Planning) -> Graph:
    """A copy of a graph, of its class and a `PlannedGraph` as well."""
    result = copy(graph)
    result.__class__ = _planned_class(type(graph))
    whole = cast("PlannedGraph", result)
    whole.planning = planning
    whole.prepared = {
        name: PreparedNode(name, node, _inside(node.bound)) for name, node in graph.nodes.items()
    }
    return result


def _inside(runnable: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """A graph that is a node is planned in its turn, as part of the run that it is in."""
    if not isinstance(runnable, Pregel) or isinstance(runnable, PlannedGraph):
        return runnable
    return planned(runnable, Planning())


@cache
def _planned_class(kind: type[Graph]) -> type[Graph]:
    """Named as the graph's own class, so that whoever looks sees what was there before."""
    if issubclass(kind, PlannedGraph):
        return kind
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return cast("type[Graph]", type(kind.__name__, (PlannedGraph, kind), names))
