"""One run of a compiled graph: what is planned of its tasks, and the session that it goes to."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from threading import Lock
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

from parrot_integrations.langchain.compiling.graphs.planning import Planning
from parrot_integrations.langchain.compiling.observing.native import RunObserver, observed_by
from parrot_integrations.langchain.compiling.planner import Planner, StepContext
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.session import PlannedRun, ResolvedValues
from parrot_integrations.planning.values import Unknown


@dataclass(frozen=True, slots=True)
class Task:
    """One execution of a node, with a number that tells it from all others of the run."""

    node: str
    runnable: Runnable[Any, Any]
    input: Any
    config: RunnableConfig
    number: int

    def context(self, plan: Plan) -> StepContext:
        """What the node's runnable gets beside its input; a run's tasks have one limit together."""
        configurable = self.config.get("configurable", {})
        whole = StepContext(configurable=configurable)
        limited = whole.limited(plan, self.config.get("max_concurrency"))
        return replace(limited, place=("nodes", self.node), elements=(self.number,))


class GraphRun:
    """One run of a compiled graph, and of the graphs that are nodes of it.

    A task is planned once: when it is sent, or else when it starts. Its retries run unplanned.
    """

    def __init__(self, planning: Planning) -> None:
        self._planner = Planner()
        self.session = PlannedRun(self._planner.plan, planning.objective, planning.on_session)
        self._observer = RunObserver(self._planner.plan, self.session)
        self._numbers = count()
        self._lock = Lock()
        self._started: dict[str | None, Task] = {}
        self._sent: defaultdict[tuple[str, int], list[Task]] = defaultdict(list)

    @contextmanager
    def active(self) -> Iterator[None]:
        """What runs inside is part of this run: its requests may claim, its steps are observed."""
        token = _current.set(self)
        try:
            with self.session.active(), observed_by(self._observer):
                yield
        finally:
            _current.reset(token)

    def task(
        self, node: str, runnable: Runnable[Any, Any], input: Any, config: RunnableConfig
    ) -> Task:
        """A new task of a node."""
        return Task(node, runnable, input, config, next(self._numbers))

    def sent(self, tasks: Iterable[Task]) -> ResolvedValues:
        """What it settles that tasks are sent for the next superstep; they are planned as one."""
        for task in tasks:
            # LangGraph hands on the object that was sent, so its id is known while it is kept here.
            self._sent[task.node, id(task.input)].append(task)
            yield self._when_settled(partial(self._plan, task)), task.input

    def started(self, task: Task, task_id: str | None) -> tuple[Task, ResolvedValues]:
        """A task that starts, as it was sent or tried before, and what that settles."""
        with self._lock:
            known = None if task_id is None else self._started.get(task_id)
            if known is None and (sent := self._sent.get((task.node, id(task.input)))):
                known = sent.pop()
            self._started[task_id] = known or task
        if known:
            return known, ()
        return task, [(self._when_settled(partial(self._plan, task)), task.input)]

    def named(self, task: Task, config: RunnableConfig) -> RunnableConfig:
        """A configuration from which the steps inside a node know their task."""
        return self._observer.named(config, None, ("nodes", task.node), (task.number,))

    def is_open(self, task: Task) -> bool:
        """Whether more of a task can be planned once a step inside it has given its value."""
        return any(unknown.awaited for unknown in self._unknowns(task).values())

    def ended(self, task: Task) -> None:
        """Forget what a task has left unknown: it won't tell any more, and nothing waits behind it."""
        if self._unknowns(task):
            self.session.settle([(self._when_settled(partial(self._forget, task)), None)])

    def _plan(self, task: Task) -> None:
        self._planner.step(task.runnable, task.input, task.context(self._planner.plan))

    def _forget(self, task: Task) -> None:
        for key in self._unknowns(task):
            del self._planner.plan.unknowns[key]

    def _unknowns(self, task: Task) -> dict[Any, Unknown]:
        """By their keys, which are a place and elements; other tasks may just be planned."""
        unknowns: list[tuple[Any, Unknown]] = [*self._planner.plan.unknowns.items()]
        return {key: unknown for key, unknown in unknowns if key[1][:1] == (task.number,)}

    @staticmethod
    def _when_settled(plan: Callable[[], None]) -> Unknown:
        """The session settles it when nothing else is being planned."""
        unknown = Unknown()
        unknown.then(plan)
        return unknown


_current: ContextVar[GraphRun | None] = ContextVar("parrot_graph_run", default=None)


@contextmanager
def graph_run(planning: Planning) -> Iterator[GraphRun]:
    """The run that this is a part of, or else a new one."""
    if (run := _current.get()) is not None:
        yield run
        return
    run = GraphRun(planning)
    with run.session:
        yield run
