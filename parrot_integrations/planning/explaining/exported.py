"""A plan for tools: one JSON object, whose keys stay what they are."""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from parrot_backend.program.analysis import Deduction
from parrot_backend.program.critical_path import saved
from parrot_backend.wire.protocol import SemanticCall
from parrot_backend.wire.views import SessionView
from parrot_integrations.planning.explaining.comparing import Timed, gained
from parrot_integrations.planning.explaining.marking import (
    length,
    marked,
    marked_text,
    with_markers,
)
from parrot_integrations.planning.explaining.overview import Overview
from parrot_integrations.planning.explaining.reasons import why
from parrot_integrations.planning.explaining.run import Run, fate, started


def as_json(
    seen: Overview,
    run: Run | None = None,
    counts: SessionView | None = None,
    compared: Sequence[Timed] = (),
) -> str:
    """The plan, call by call; `run` is null where it did not run, `comparison` where nothing else did.

    Args:
        seen: what is told.
        run: the session's calls beside it, where it ran.
        counts: those of the session when it was over.
        compared: it and the native runs around it, timed.
    """
    told = {
        "objective": seen.objective,
        "calls": [_call(seen, call) for call in seen.plan.calls],
        "variables": [{"name": n, "value": v} for n, v in seen.plan.variables.items()],
        "transforms": [
            {
                "description": transform.description,
                "inputs": [with_markers(marked_text(text)) for text in transform.inputs],
                "output": transform.output,
            }
            for transform in seen.plan.transforms
        ],
        "breaks": [
            {
                "step": stop.step,
                "where": stop.where,
                "location": stop.location,
                "reason": stop.reason,
                "remedy": stop.remedy,
                "reads": list(stop.reads),
                "output": stop.output,
            }
            for stop in seen.breaks
        ],
        "groups": _groups(seen),
        "concurrency": dict(seen.concurrency),
        "notes": [{"where": where, "text": text} for where, text in seen.plan.notes.items()],
        "run": None if run is None or counts is None else _run(run, counts),
        "comparison": _comparison(compared) if compared else None,
    }
    return json.dumps(told, ensure_ascii=False, indent=2)


def _call(seen: Overview, call: SemanticCall) -> dict[str, Any]:
    deduction: Deduction = seen.deduced[call.id]
    share = seen.shared.get(call.id)
    return {
        "id": call.id,
        "prompt": with_markers(marked(call)),
        "output": call.output,
        "objective": deduction.objective,
        "why": why([deduction], broken=bool(seen.breaks)),
        "group": deduction.group,
        "concurrency": call.concurrency,
        "path": deduction.path,
        "held": call.id in seen.plan.held,
        "shares_with": share.call_id if share else None,
        "shared_characters": length(share.prefix, {}) if share else 0,
    }


def _groups(seen: Overview) -> list[dict[str, Any]]:
    members: defaultdict[str, list[str]] = defaultdict(list)
    for call in seen.plan.calls:
        if (group := seen.deduced[call.id].group) is not None:
            members[group].append(call.id)
    return [{"name": name, "calls": calls} for name, calls in members.items()]


def _comparison(runs: Sequence[Timed]) -> dict[str, Any]:
    timed = [{"way": run.way, "seconds": run.seconds} for run in runs]
    return {"runs": timed, "gained_seconds": gained(runs)}


def _run(run: Run, counts: SessionView) -> dict[str, Any]:
    return {
        "planned": counts.planned,
        "claimed": counts.claimed,
        "dependent": counts.dependent,
        "ahead": counts.ahead,
        "unplanned": counts.unplanned,
        "seconds": run.seconds,
        "saved_seconds": run.saved_seconds,
        "critical_path": [view.id for view in run.path],
        "warm_tokens": run.warm_tokens,
        "wasted": [view.id for view in run.wasted],
        "calls": [
            {
                "id": view.id,
                "fate": fate(view),
                "queued": view.queued,
                "dispatched": view.dispatched,
                "asked": view.claimed_at,
                "started": started(view),
                "finished": view.finished,
                "saved_seconds": saved(view),
                "prompt_tokens": view.prompt_tokens,
                "shared_tokens": view.cached_tokens,
                "predicted_tokens": run.foreseen.get(view.id),
                "answer_tokens": view.completion_tokens,
            }
            for view in run.graph.calls
        ],
    }
