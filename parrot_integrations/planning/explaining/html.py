"""A plan for a notebook: its drawing, and tables of what it consists of. Everything is escaped."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from parrot_integrations.planning.explaining.drawing import drawing
from parrot_integrations.planning.explaining.explain import (
    headline,
    limits_of,
    name_of,
    place_of,
    reason_of,
    sharing_of,
    transform_of,
)
from parrot_integrations.planning.explaining.marking import short
from parrot_integrations.planning.explaining.overview import Overview
from parrot_integrations.planning.explaining.svg import svg

_CELL = 'style="text-align:left;vertical-align:top;padding:2px 8px"'
_WIDTH = 160


def html(seen: Overview, analysis: str = "") -> str:
    """A part of a page, without scripts and without anything to be fetched.

    Args:
        seen: what is told.
        analysis: what came of it, as text, where it ran.
    """
    values = [
        (v.label, short(v.members[0][1], _WIDTH), f"{len(v.members)}") for v in seen.variables()
    ]
    transforms = [
        (transform_of(t), f"{{{t.output}}}", f"{len(t.members)}") for t in seen.transforms()
    ]
    breaks = [
        (place_of(s.members[0]), s.members[0].reason, s.members[0].remedy, f"{len(s.members)}")
        for s in seen.stops()
    ]
    return "".join(
        [
            f'<div class="parrot-plan"><p>{escape(headline(seen))}</p>',
            f'<div style="overflow:auto;max-height:40em">{svg(drawing(seen))}</div>',
            _table("Graph breaks", ("step", "reason", "what to do", "times"), breaks, opened=True),
            _table(
                "Calls", ("call", "prompt", "objective", "max_concurrency", "shared"), _calls(seen)
            ),
            _table("Transforms", ("what", "output", "times"), transforms),
            _table("Variables", ("name", "value", "values"), values),
            _table("Notes", ("where", "note"), seen.plan.notes.items()),
            _run(analysis),
            "</div>",
        ]
    )


def _calls(seen: Overview) -> Iterator[Sequence[str]]:
    for calls in seen.calls():
        prompt = f"{short(calls.label, _WIDTH)} → {{{calls.output}}}"
        details = reason_of(seen, calls), limits_of(seen, calls), sharing_of(seen, calls)
        yield name_of(calls), prompt, *details


def _table(
    heading: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, opened: bool = False
) -> str:
    body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows)
    if not body:
        return ""
    state = ' open="open"' if opened else ""
    return (
        f"<details{state}><summary>{escape(heading)}</summary>"
        f"<table><thead><tr>{_cells('th', columns)}</tr></thead><tbody>{body}</tbody></table></details>"
    )


def _cells(tag: str, texts: Sequence[str]) -> str:
    return "".join(f"<{tag} {_CELL}>{escape(text)}</{tag}>" for text in texts)


def _run(analysis: str) -> str:
    if not analysis:
        return ""
    told = f"<pre>{escape(analysis)}</pre>"
    return f'<details open="open"><summary>Run</summary>{told}</details>'
