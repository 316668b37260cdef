"""`explain` and `aexplain`: what is planned of a runnable, and on demand what comes of it."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

from parrot_backend.wire.protocol import Objective
from parrot_integrations.planning.explaining.explained import Explained
from parrot_integrations.planning.explaining.report import Format
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.session import OnSession


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
        explained = self._explained(input, config, kwargs, analyze, compare, format)
        explained.run(lambda on_session: self._way(on_session).invoke(input, config, **kwargs))
        return explained.told()

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
        explained = self._explained(input, config, kwargs, analyze, compare, format)
        await explained.arun(
            lambda on_session: self._way(on_session).ainvoke(input, config, **kwargs)
        )
        return await asyncio.to_thread(explained.told)

    def _explained(
        self,
        input: Any,
        config: RunnableConfig | None,
        kwargs: Any,
        analyze: bool,
        compare: bool,
        format: Format,
    ) -> Explained:
        return Explained(
            lambda: self.plan([input], config, kwargs),
            self._wanted(),
            analyze=analyze,
            compare=compare,
            format=format,
        )

    def _way(self, on_session: OnSession | None) -> Runnable[Any, Any]:
        return self._native() if on_session is None else self._watched(on_session)
