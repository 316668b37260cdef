"""Nodes of a graph in a run: as they are, but that their tasks are planned before they run."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, cast

from langchain_core.runnables import Runnable, RunnableConfig, RunnableSequence
from langgraph._internal._constants import CONFIG_KEY_SEND, CONFIG_KEY_TASK_ID, TASKS
from langgraph.pregel import Pregel
from langgraph.pregel._read import PregelNode
from langgraph.types import Send

from parrot_integrations.langchain.compiling.calls import makes_calls
from parrot_integrations.langchain.compiling.graphs.run import GraphRun, Task
from parrot_integrations.langchain.compiling.observing.rebuilt import observed
from parrot_integrations.planning.session import ResolvedValues

Writes = Sequence[tuple[str, Any]]


@dataclass(frozen=True)
class PreparedNode:
    """A node of a compiled graph; `runnable` is what it was given, a graph being compiled."""

    name: str
    node: PregelNode
    runnable: Runnable[Any, Any]

    @cached_property
    def makes_calls(self) -> bool:
        """Whether there may be something to plan; a graph's own nodes are planned by themselves."""
        if isinstance(self.runnable, Pregel):
            return False
        function = getattr(self.runnable, "func", None) or getattr(self.runnable, "afunc", None)
        return makes_calls(self.runnable if function is None else function)

    @property
    def may_be_sent_ahead(self) -> bool:
        """Whether it may be planned before it starts; one with a cache may not run at all."""
        return self.makes_calls and self.node.cache_policy is None

    @cached_property
    def native(self) -> Runnable[Any, Any] | None:
        """The runnable with the writers of its output behind it; None where there is neither."""
        return self.node.copy({"bound": self.runnable}).node

    @cached_property
    def observed(self) -> Runnable[Any, Any] | None:
        """As `native`, with observers around the steps of the runnable."""
        place = ("nodes", self.name)
        copied = observed(self.runnable, place, outer=place, is_element=False)
        if copied.bound is self.runnable:
            return self.native
        # LangGraph makes the steps of a sequence its own, so nothing may be around them.
        is_sequence = isinstance(self.runnable, RunnableSequence)
        return self.node.copy({"bound": copied.bound if is_sequence else copied}).node


@dataclass(frozen=True)
class GraphPart:
    """The nodes of one graph in a run.

    `ahead`: what they send one another surely runs, so that it may be planned when it is sent.
    """

    run: GraphRun
    nodes: Mapping[str, PreparedNode]
    ahead: bool

    def started(
        self, node: PreparedNode, input: Any, config: RunnableConfig
    ) -> tuple[Task, ResolvedValues]:
        """A task that starts, and what that settles."""
        task = self.run.task(node.name, node.runnable, input, config)
        if not node.makes_calls:
            return task, ()
        task_id = config.get("configurable", {}).get(CONFIG_KEY_TASK_ID)
        return self.run.started(task, task_id)

    def configured(self, task: Task, config: RunnableConfig) -> RunnableConfig:
        """The configuration of a task, whose writes are seen and whose steps know their task."""
        configurable = config.get("configurable", {})
        if (send := configurable.get(CONFIG_KEY_SEND)) is not None:
            write = partial(self._written, send, config)
            config = cast(
                "RunnableConfig",
                {**config, "configurable": {**configurable, CONFIG_KEY_SEND: write}},
            )
        return self.run.named(task, config)

    def _written(
        self, write: Callable[[Writes], None], config: RunnableConfig, writes: Writes
    ) -> None:
        write(writes)
        if self.ahead and any(channel == TASKS for channel, _ in writes):
            self.run.session.settle(self.run.sent(self._sent(writes, config)))

    def _sent(self, writes: Writes, config: RunnableConfig) -> Iterator[Task]:
        for channel, value in writes:
            node = self.nodes.get(value.node) if isinstance(value, Send) else None
            if channel == TASKS and node is not None and node.may_be_sent_ahead:
                yield self.run.task(node.name, node.runnable, value.arg, config)


class PlannedTask(Runnable[Any, Any]):
    """What LangGraph runs of a node: the same, planned. It opens no run of its own."""

    def __init__(self, part: GraphPart, node: PreparedNode) -> None:
        self._part = part
        self._session = part.run.session
        self._node = node

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """`invoke` of the node."""
        config = config or {}
        task, settled = self._part.started(self._node, input, config)
        if settled:
            self._session.settle(settled)
        with self._running(task, config) as (native, configured):
            return native.invoke(input, configured, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """`ainvoke` of the node."""
        config = config or {}
        task, settled = self._part.started(self._node, input, config)
        if settled:
            await self._session.asettle(settled)
        with self._running(task, config) as (native, configured):
            return await native.ainvoke(input, configured, **kwargs)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """`astream` of the node."""
        config = config or {}
        task, settled = self._part.started(self._node, input, config)
        if settled:
            await self._session.asettle(settled)
        with self._running(task, config) as (native, configured):
            async for chunk in native.astream(input, configured, **kwargs):
                yield chunk

    @contextmanager
    def _running(
        self, task: Task, config: RunnableConfig
    ) -> Iterator[tuple[Runnable[Any, Any], RunnableConfig]]:
        run = self._part.run
        native = self._node.observed if run.is_open(task) else self._node.native
        try:
            with run.active():
                yield cast("Runnable[Any, Any]", native), self._part.configured(task, config)
        finally:
            run.ended(task)


class PlannedNode(PregelNode):
    """A node whose tasks are planned; `planned` is what LangGraph runs of it."""

    __slots__ = ("planned",)
    planned: PlannedTask | None

    @property
    def node(self) -> Runnable[Any, Any] | None:
        """What LangGraph runs of the node."""
        return self.planned


def planned_nodes(part: GraphPart) -> dict[str, PregelNode]:
    """The nodes of a graph, for one run."""
    return {name: _planned(part, node) for name, node in part.nodes.items()}


def _planned(part: GraphPart, prepared: PreparedNode) -> PregelNode:
    node = PlannedNode.__new__(PlannedNode)
    vars(node).update(vars(prepared.node), flat_writers=prepared.node.flat_writers)
    node.planned = None if prepared.native is None else PlannedTask(part, prepared)
    return node
