"""`explain` and `aexplain` of what was compiled."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from parrot_backend.wire.protocol import Objective
from parrot_integrations.planning.explaining.explained import Explained
from parrot_integrations.planning.explaining.report import Format
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.session import OnSession


class Explainable(Protocol):
    """What was compiled, as far as an explanation needs it."""

    objective: Objective | None

    def plan(self, args: Any, kwargs: Any) -> Plan:
        """The plan for a run with these arguments; nothing is submitted."""

    def run(self, on_session: OnSession | None, args: Any, kwargs: Any) -> Any:
        """A run, planned, or without a plan where there is no listener."""

    def arun(self, on_session: OnSession | None, args: Any, kwargs: Any) -> Awaitable[Any]:
        """As `run`."""


def _unexplained(_: Any) -> Any:
    raise AttributeError(
        "a workflow or an agent is not explained: its steps are code that planning does not run, and "
        "what they call of LlamaIndex's is planned when it is called; compile with on_session= to look "
        "into the session of each run"
    )


UNEXPLAINED = property(_unexplained)
"""The `explain` of what has none, which says why."""


def explain_of(explainable: Explainable) -> Callable[..., str]:
    """The `explain` of what was compiled."""

    def explain(
        *args: Any,
        analyze: bool = False,
        compare: bool = False,
        format: Format = "text",
        **kwargs: Any,
    ) -> str:
        """What is planned of a run: calls, what they share, what is deduced of them, and breaks.

        Nothing runs, and no handler hears of it, unless it is to be analyzed. A notebook shows the text
        as HTML, with a drawing.

        Args:
            args, kwargs: as for a run: of `query`, `synthesize`, `run`, `process_nodes`, or whichever
                of its methods it is that makes it work.
            analyze: run it, and tell what came of the plan; see LangChain's `explain`.
            compare: run it four times, planned and native in turns, and tell what the plan gained.
            format: `text`; `html`, a part of a page; `json`, whose keys stay as they are; or `mermaid`,
                a flowchart.

        Raises:
            ValueError: there is no such format.
        """
        explained = _explained(explainable, args, kwargs, analyze, compare, format)
        explained.run(lambda on_session: explainable.run(on_session, args, kwargs))
        return explained.told()

    return explain


def aexplain_of(explainable: Explainable) -> Callable[..., Awaitable[str]]:
    """The `aexplain` of what was compiled."""

    async def aexplain(
        *args: Any,
        analyze: bool = False,
        compare: bool = False,
        format: Format = "text",
        **kwargs: Any,
    ) -> str:
        """As `explain`; what is to be analyzed runs by the async method."""
        explained = _explained(explainable, args, kwargs, analyze, compare, format)
        await explained.arun(lambda on_session: explainable.arun(on_session, args, kwargs))
        return await asyncio.to_thread(explained.told)

    return aexplain


def _explained(
    explainable: Explainable, args: Any, kwargs: Any, analyze: bool, compare: bool, format: Format
) -> Explained:
    def plan() -> Plan:
        planned = explainable.plan(args, kwargs)
        if planned.breaks and not (analyze or compare):
            planned.note(
                "behind the breaks", "analyze=True runs it, and tells what is planned there"
            )
        return planned

    return Explained(
        plan,
        explainable.objective,
        analyze=analyze,
        compare=compare,
        format=format,
    )
