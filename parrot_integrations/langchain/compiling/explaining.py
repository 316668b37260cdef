"""`explain` and `aexplain`: what is planned of a runnable, and on demand what comes of it."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

from parrot_backend.wire.protocol import Objective
from parrot_integrations.planning.explaining.comparing import ORDER, Timed, Way
from parrot_integrations.planning.explaining.report import Format, check, report
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.session import OnSession, PlannedSession, run_objective


class Explaining(ABC):
    """A compiled runnable that explains its plan."""

    @abstractmethod
    def plan(self, inputs: Sequence[Any], config: Any = None, kwargs: Any = None) -> Plan:
        """The plan for inputs; nothing is submitted."""

    @abstractmethod
    def _wanted(self) -> Objective | None:
        """What is wanted of the results."""

    @abstractmethod
    def _watched(self, on_session: OnSession) -> Runnable[Any, Any]:
        """The same, planned, with another listener to its sessions."""

    @abstractmethod
    def _native(self) -> Runnable[Any, Any]:
        """The same without a plan."""

    def explain(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        analyze: bool = False,
        compare: bool = False,
        format: Format = "text",
        **kwargs: Any,
    ) -> str:
        """What is planned for an input: calls, what they share, what is deduced of them, and breaks.

        Nothing runs, and no callback fires, unless it is to be analyzed. A notebook shows the text as
        HTML, with a drawing.

        Args:
            input: as for `invoke`.
            config: as for `invoke`.
            analyze: run it, and tell what came of the plan: dependent calls and calls run ahead, what
                they saved on the critical path, tokens shared, calls that nobody asked for. The time
                saved is, for each call on the critical path, what passed between its dispatch and
                the client's asking for it, or its end if that came first.
            compare: run it four times, planned and native in turns, and tell also what the plan gained
                in the second pair; what came of the plan is that of the first run.
            format: `text`; `html`, a part of a page; `json`, whose keys stay as they are; or `mermaid`,
                a flowchart.
            kwargs: as for `invoke`.

        Raises:
            ValueError: there is no such format.
        """
        check(format)
        sessions: list[PlannedSession] = []
        timed: list[Timed] = []
        for way, runnable in self._runs(sessions, analyze=analyze, compare=compare):
            start = perf_counter()
            runnable.invoke(input, config, **kwargs)
            timed.append(Timed(way, perf_counter() - start))
        return self._told(sessions, timed, format, lambda: self.plan([input], config, kwargs))

    async def aexplain(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        analyze: bool = False,
        compare: bool = False,
        format: Format = "text",
        **kwargs: Any,
    ) -> str:
        """As `explain`; what is to be analyzed runs by `ainvoke`."""
        check(format)
        sessions: list[PlannedSession] = []
        timed: list[Timed] = []
        for way, runnable in self._runs(sessions, analyze=analyze, compare=compare):
            start = perf_counter()
            await runnable.ainvoke(input, config, **kwargs)
            timed.append(Timed(way, perf_counter() - start))
        return await asyncio.to_thread(
            self._told, sessions, timed, format, lambda: self.plan([input], config, kwargs)
        )

    def _runs(
        self, sessions: list[PlannedSession], *, analyze: bool, compare: bool
    ) -> Iterator[tuple[Way, Runnable[Any, Any]]]:
        for way in ORDER if compare else ORDER[:1] if analyze else ():
            yield way, self._watched(sessions.append) if way == "planned" else self._native()

    def _told(
        self,
        sessions: Sequence[PlannedSession],
        timed: Sequence[Timed],
        format: Format,
        plan: Callable[[], Plan],
    ) -> str:
        """Of the plan as it ran, where there was something to submit."""
        objective = run_objective(self._wanted())
        runs = timed if len(timed) > 1 else ()
        if sessions and sessions[0].opened:
            return report(
                sessions[0].plan, objective, format=format, ran=sessions[0], compared=runs
            )
        expected = plan()
        expected.take(objective)  # which of its calls would be held back shows then
        if timed:
            expected.note(
                "the run", "had nothing to submit: no call would have started any earlier"
            )
        return report(expected, objective, format=format, compared=runs)
