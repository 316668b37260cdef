"""What observers in a running chain report to, so that the plan goes on from what they saw.

Which execution of a step it was, the runs' ids say: a run whose id is chosen here is known to its
children as their parent. Ids are random otherwise, so nobody sees it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast
from uuid import UUID

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.messages import AIMessage
from langchain_core.messages.base import TextAccessor
from langchain_core.runnables import RunnableConfig
from langchain_core.utils.uuid import uuid7

from parrot_integrations.langchain.compiling.planner import StepPath
from parrot_integrations.langchain.models.chunks import merged
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.session import PlannedRun
from parrot_integrations.planning.values import Unknown

MapIndices = tuple[int, ...]
ResolvedValues = list[tuple[Unknown, Any]]


class RunObserver:
    """One run of an observed runnable: which run works on which elements, and who tells the plan."""

    def __init__(self, plan: Plan, run: PlannedRun | None) -> None:
        self._plan = plan
        self._run = run
        self._elements: dict[UUID, MapIndices] = {}

    def elements(self, config: RunnableConfig | None) -> MapIndices | None:
        """The elements that a step's parent works on; None where that is not known."""
        callbacks = (config or {}).get("callbacks")
        if not isinstance(callbacks, BaseCallbackManager) or callbacks.parent_run_id is None:
            return None
        return self._elements.get(callbacks.parent_run_id)

    def named(self, config: RunnableConfig | None, elements: MapIndices) -> RunnableConfig:
        """A configuration whose run's children will be found by `elements`."""
        known = config or RunnableConfig()
        run_id = known.get("run_id") or uuid7()
        self._elements[run_id] = elements
        return cast("RunnableConfig", {**known, "run_id": run_id})

    def entered(self, place: StepPath, elements: MapIndices | None) -> ResolvedValues:
        """What it settles that a step begins."""
        unknown = self._plan.unknowns.get((place, elements, "entered"))
        return [] if unknown is None or unknown.settled else [(unknown, None)]

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
