"""What observers in a running chain report to, so that the plan goes on from what they saw.

Which execution of a step it was, the runs' ids say: a run whose id is chosen here is known to its
children as their parent. Ids are random otherwise, so nobody sees it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, cast
from uuid import UUID

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.messages import AIMessage
from langchain_core.messages.base import TextAccessor
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.utils.uuid import uuid7

from parrot_integrations.langchain.compiling.planner import StepPath
from parrot_integrations.langchain.models.chunks import merged
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.session import PlannedRun
from parrot_integrations.planning.values import Unknown

MapIndices = tuple[int, ...]
ResolvedValues = list[tuple[Unknown, Any]]


class NamedRun(NamedTuple):
    """A run whose id was chosen here: of which step, and on which elements it works."""

    place: StepPath
    elements: MapIndices


class RunObserver:
    """One run of an observed runnable: which run works on which elements, and who tells the plan."""

    def __init__(self, plan: Plan, run: PlannedRun | None) -> None:
        self._plan = plan
        self._run = run
        self._named: dict[UUID, NamedRun] = {}
        self._chosen: set[UUID] = set()

    def handed(self, config: RunnableConfig | None, outer: StepPath) -> MapIndices | None:
        """The elements that the step around hands on, which is at `outer` and opens no run."""
        return self._elements((config or {}).get("run_id"), outer)

    def inherited(self, config: RunnableConfig | None, outer: StepPath) -> MapIndices | None:
        """The elements that the run around works on, which is of the step at `outer`.

        Fallbacks give what they try the configuration of the run around theirs; their own is in the
        context.
        """
        found = (self._elements(run_id, outer) for run_id in _parents(config))
        return next((elements for elements in found if elements is not None), None)

    def _elements(self, run_id: UUID | None, place: StepPath) -> MapIndices | None:
        named = None if run_id is None else self._named.get(run_id)
        return named.elements if named is not None and named.place == place else None

    def named(
        self,
        config: RunnableConfig | None,
        bound: RunnableConfig | None,
        place: StepPath,
        elements: MapIndices,
    ) -> RunnableConfig:
        """A configuration by whose run the steps inside will know their elements.

        `bound` is the configuration that the step has of itself; a run id in it stays the user's.
        """
        known = config or RunnableConfig()
        run_id = known.get("run_id") or (bound or {}).get("run_id")
        if run_id is None:
            run_id = uuid7()
            self._chosen.add(run_id)
        self._named[run_id] = NamedRun(place, elements)
        return cast("RunnableConfig", {**known, "run_id": run_id})

    def unnamed(self, config: RunnableConfig) -> RunnableConfig:
        """A configuration as it would be if nobody observed: without a run id that was chosen here."""
        if config.get("run_id") not in self._chosen:
            return config
        return cast("RunnableConfig", {k: v for k, v in config.items() if k != "run_id"})

    def entered(
        self, place: StepPath, elements: MapIndices | None, value: Any = None
    ) -> ResolvedValues:
        """What it settles that a step begins, with `value` where it is given whole."""
        unknown = self._plan.unknowns.get((place, elements, "entered"))
        return [] if unknown is None or unknown.settled else [(unknown, value)]

    def returned(self, place: StepPath, elements: MapIndices | None, value: Any) -> ResolvedValues:
        """What it settles that a function gave a runnable, which is run in its place."""
        unknown = self._plan.unknowns.get((place, elements, "returned"))
        return [] if unknown is None or unknown.settled else [(unknown, value)]

    def left(self, place: StepPath, elements: MapIndices | None, value: Any) -> ResolvedValues:
        """What it settles that a step gave a value."""
        self._answered((place, elements), value)
        unknown = self._plan.unknowns.get((place, elements))
        awaited = unknown is not None and not unknown.settled and not isinstance(value, Exception)
        known = str(value) if type(value) is TextAccessor else value
        return [(unknown, known)] if unknown is not None and awaited else []

    def left_in_chunks(
        self, place: StepPath, elements: MapIndices | None, chunks: list[Any]
    ) -> ResolvedValues:
        """As `left`, of the value that the chunks add up to."""
        key = (place, elements)
        if not chunks or not (key in self._plan.unknowns or self._plan.awaits(key)):
            return []
        return [
            settled for value in merged(chunks) for settled in self.left(place, elements, value)
        ]

    def _answered(self, key: tuple[StepPath, MapIndices | None], value: Any) -> None:
        """A model whose call was not submitted has answered."""
        if self._plan.awaits(key) and isinstance(value, AIMessage):
            self._plan.told(key, str(value.text))

    def settle(self, settled: ResolvedValues) -> None:
        """Plan on with what has become known, before the next step begins."""
        if settled and self._run is not None:
            self._run.settle(settled)

    async def asettle(self, settled: ResolvedValues) -> None:
        """As `settle`."""
        if settled and self._run is not None:
            await self._run.asettle(settled)


def _parents(config: RunnableConfig | None) -> Iterator[UUID]:
    for around in (config, var_child_runnable_config.get()):
        callbacks = (around or {}).get("callbacks")
        if isinstance(callbacks, BaseCallbackManager) and callbacks.parent_run_id is not None:
            yield callbacks.parent_run_id


_IDLE = RunObserver(Plan(), None)

_current: ContextVar[RunObserver | None] = ContextVar("parrot_native_run", default=None)


def current() -> RunObserver:
    """The run that observers report to; outside of one, nothing comes of it."""
    return _current.get() or _IDLE


@contextmanager
def observed_by(run: RunObserver) -> Iterator[None]:
    """Let observers that run inside report to `run`."""
    token = _current.set(run)
    try:
        yield
    finally:
        _current.reset(token)
