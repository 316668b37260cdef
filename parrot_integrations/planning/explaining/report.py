"""A plan told in one of the forms that there are, with what came of it where it ran."""

from collections.abc import Sequence
from typing import Any, Literal, Self, get_args

from parrot_backend.wire.protocol import Objective
from parrot_integrations.planning.explaining.analyze import analyze
from parrot_integrations.planning.explaining.comparing import Timed
from parrot_integrations.planning.explaining.comparing import compared as in_words
from parrot_integrations.planning.explaining.drawing import drawing
from parrot_integrations.planning.explaining.explain import explain
from parrot_integrations.planning.explaining.exported import as_json
from parrot_integrations.planning.explaining.html import html
from parrot_integrations.planning.explaining.mermaid import mermaid
from parrot_integrations.planning.explaining.overview import overview
from parrot_integrations.planning.explaining.run import Run
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.session import PlannedSession

Format = Literal["text", "html", "json", "mermaid"]


class Explanation(str):
    """A text, which a notebook shows as the page that belongs to it."""

    html: str

    def __new__(cls, text: str, html: str = "") -> Self:
        """The text, and the page for it."""
        made = super().__new__(cls, text)
        made.html = html
        return made

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self.html}


def check(format: str) -> None:
    """Whether there is such a form.

    Raises:
        ValueError: there is not.
    """
    if format not in get_args(Format):
        raise ValueError(f"format is {', '.join(map(repr, get_args(Format)))}, not {format!r}")


def report(
    plan: Plan,
    objective: Objective = "latency",
    *,
    format: Format = "text",
    ran: PlannedSession | None = None,
    compared: Sequence[Timed] = (),
) -> str:
    """The plan for a terminal, a notebook, a tool, or as a Mermaid flowchart.

    Args:
        plan: what is told.
        objective: what is wanted of its outputs.
        format: `text` (which a notebook shows as HTML), `html`, `json` or `mermaid`.
        ran: the session in which it ran, and which is over.
        compared: it and the native runs around it, timed.

    Raises:
        ValueError: there is no such format.
    """
    check(format)
    graph = ran.graph() if ran is not None else None
    seen = overview(plan, objective, graph)
    run = Run(seen, graph) if graph is not None else None
    counts = ran.view() if ran is not None else None
    if format == "mermaid":
        return mermaid(drawing(seen))
    if format == "json":
        return as_json(seen, run, counts, compared)
    told = [analyze(run, counts)] if run is not None and counts is not None else []
    told += [in_words(compared)] if compared else []
    page = html(seen, "\n\n".join(told))
    text = "\n\n".join([explain(seen), *told])
    return Explanation(page if format == "html" else text, page)
