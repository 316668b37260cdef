"""What observers in a running chain report to, so that the plan goes on from what they saw.

Which execution of a step it was, the runs' ids say: a run whose id is chosen here is known to its
children as their parent. Ids are random otherwise, so nobody sees it.
"""

from contextvars import Context, ContextVar
from typing import Any, cast
from uuid import UUID

from langchain_core.callbacks import BaseCallbackManager
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
        unknown = self._plan.unknowns.get((place, elements))
        awaited = unknown is not None and not unknown.settled and not isinstance(value, Exception)
        known = str(value) if type(value) is TextAccessor else value
        return [(unknown, known)] if unknown is not None and awaited else []

    def left_in_chunks(
        self, place: StepPath, elements: MapIndices | None, chunks: list[Any]
    ) -> ResolvedValues:
        """As `left`, of the value that the chunks add up to."""
        if (place, elements) not in self._plan.unknowns or not chunks:
            return []
        return [
            settled for value in merged(chunks) for settled in self.left(place, elements, value)
        ]

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


def make_current(context: Context, run: RunObserver) -> None:
    """Let observers that run in `context` report to `run`."""
    context.run(_current.set, run)
