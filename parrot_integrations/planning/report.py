"""A plan told in one of the forms that there are, with what came of it where it ran."""

from typing import Literal

from parrot_backend.wire.protocol import Objective
from parrot_integrations.planning.analyze import analyze
from parrot_integrations.planning.explain import explain
from parrot_integrations.planning.mermaid import mermaid
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.session import PlannedSession

Format = Literal["text", "mermaid"]


def report(
    plan: Plan,
    objective: Objective = "latency",
    *,
    format: Format = "text",
    ran: PlannedSession | None = None,
) -> str:
    """The plan for a terminal, or as a Mermaid flowchart.

    Args:
        plan: what is told.
        objective: what is wanted of its outputs.
        format: `text` or `mermaid`.
        ran: the session in which it ran, and which is over.

    Raises:
        ValueError: there is no such format.
    """
    graph = ran.graph() if ran is not None else None
    if format == "mermaid":
        return mermaid(plan, objective, graph)
    if format != "text":
        raise ValueError(f"format is 'text' or 'mermaid', not {format!r}")
    text = explain(plan, objective, graph)
    if ran is None or graph is None:
        return text
    return f"{text}\n\n{analyze(plan, ran.view(), graph)}"
