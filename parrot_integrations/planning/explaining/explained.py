"""What is told of a compiled thing: its plan, and on demand what comes of that when it runs."""

from collections.abc import Awaitable, Callable, Iterator
from time import perf_counter
from typing import Any

from parrot_backend.wire.protocol import Objective
from parrot_integrations.planning.explaining.comparing import ORDER, Timed, Way
from parrot_integrations.planning.explaining.report import Format, check, report
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.session import OnSession, PlannedSession, run_objective

Runs = Callable[[OnSession | None], Any]
"""Runs it: planned, with a listener to its sessions, or without a plan, where that is None."""


class Explained:
    """An explanation in the making.

    Args:
        plan: gives the plan; nothing is submitted.
        objective: what is wanted of the results.
        analyze: whether it runs, for what came of the plan.
        compare: whether it runs four times, planned and native in turns.
        format: see `report`.

    Raises:
        ValueError: there is no such format.
    """

    def __init__(
        self,
        plan: Callable[[], Plan],
        objective: Objective | None,
        *,
        analyze: bool,
        compare: bool,
        format: Format,
    ) -> None:
        check(format)
        self._plan = plan
        self._objective = run_objective(objective)
        self._ways = ORDER if compare else ORDER[:1] if analyze else ()
        self._format = format
        self._sessions: list[PlannedSession] = []
        self._timed: list[Timed] = []

    def run(self, runs: Runs) -> None:
        """Run it as often as is needed."""
        for way, listener in self._listeners():
            start, before = perf_counter(), len(self._sessions)
            runs(listener)
            self._ran(way, perf_counter() - start, before)

    async def arun(self, runs: Callable[[OnSession | None], Awaitable[Any]]) -> None:
        """As `run`."""
        for way, listener in self._listeners():
            start, before = perf_counter(), len(self._sessions)
            await runs(listener)
            self._ran(way, perf_counter() - start, before)

    def told(self) -> str:
        """Of the plan as it ran, where there was something to submit."""
        runs = self._timed if len(self._timed) > 1 else ()
        if self._sessions and self._sessions[0].opened:
            ran = self._sessions[0]
            return report(ran.plan, self._objective, format=self._format, ran=ran, compared=runs)
        expected = self._plan()
        expected.take(self._objective)  # which of its calls would be held back shows then
        if self._timed:
            expected.note(
                "the run", "had nothing to submit: no call would have started any earlier"
            )
        return report(expected, self._objective, format=self._format, compared=runs)

    def _ran(self, way: Way, seconds: float, before: int) -> None:
        """A run is over; its sessions are those behind the first `before`."""
        submitted = any(session.opened for session in self._sessions[before:])
        self._timed.append(Timed(way, seconds, submitted))

    def _listeners(self) -> Iterator[tuple[Way, OnSession | None]]:
        for way in self._ways:
            yield way, self._sessions.append if way == "planned" else None
