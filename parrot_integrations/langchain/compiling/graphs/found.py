"""Graphs among the runnables: LangGraph is loaded only where one is given."""

import logging
import sys
from dataclasses import replace
from typing import Any

from parrot_integrations.langchain.compiling.graphs.planning import Planning

logger = logging.getLogger(__name__)


def is_graph(runnable: Any) -> bool:
    """Whether it is a compiled graph of LangGraph; who has one has loaded LangGraph."""
    langgraph = sys.modules.get("langgraph.pregel")
    return langgraph is not None and isinstance(runnable, langgraph.Pregel)


def compiled_graph(graph: Any, **given: Any) -> Any:
    """The graph, its nodes planned as is said here; as it is where this LangGraph is not known."""
    try:
        from parrot_integrations.langchain.compiling.graphs.compiled import PlannedGraph, planned
    except ImportError as error:
        logger.warning("this version of LangGraph can't be planned: %s", error)
        return graph
    before = graph.planning if isinstance(graph, PlannedGraph) else Planning()
    return planned(graph, replace(before, **{k: v for k, v in given.items() if v is not None}))
