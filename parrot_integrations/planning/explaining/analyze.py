"""A run beside its plan: what was predicted, what came of it, and what it cost."""

from collections import Counter
from collections.abc import Iterator, Sequence

from parrot_backend.wire.views import CallView, SessionView
from parrot_integrations.planning.explaining.marking import counted, span
from parrot_integrations.planning.explaining.run import Run, fate, started, tokens

_PATH = 6


def analyze(run: Run, counts: SessionView) -> str:
    """What was predicted and what happened, as text for a terminal.

    The time saved is reckoned per call that the client waited for: from its dispatch until the client
    asked for it, or until its end, if that came first. Without a plan the call would have begun only
    then. Where several ran at the same time it counts once.

    Args:
        run: the session's calls, with their times and tokens, beside the plan.
        counts: those of the session when it was over.
    """
    lines = [
        f"{counts.planned} of {counted(len(run.seen.plan.calls), 'planned call')} submitted, "
        f"{counts.claimed} of them claimed: "
        f"{counts.dependent} dependent (dispatched by the backend, as another call ended), "
        f"{counts.ahead} run ahead; {counts.unplanned} not foreseen",
        "",
        "Run (shared: prompt tokens found in the prefix cache; predicted: common with an earlier "
        "call; of several calls the longest times and all tokens)",
        *_rows(run),
        "",
        f"Critical path: {_told_path(run)}",
        f"Saved on it: {run.saved_seconds:.3f} s (of each call's run, what passed before it was asked "
        "for; where several ran at the same time, once)",
        f"Prefix cache: {_warmth(run)}",
        f"Speculation wasted: {_waste(run)}",
    ]
    return "\n".join(lines)


def _rows(run: Run) -> Iterator[str]:
    views = {view.id: view for view in run.graph.calls}
    rows = [[views[c.id] for c in calls.members if c.id in views] for calls in run.seen.calls()]
    rows.append([view for view in run.graph.calls if not view.planned])
    named = [(span([view.id for view in row]), row) for row in rows if row]
    wide = max((len(name) for name, _ in named), default=0)
    yield f"  {'call':<{wide}}   queued       run   prompt   shared  predicted   answer"
    for name, row in named:
        times = f"{_longest(row, 'queued')} {_longest(row, 'finished')}"
        yield f"  {name:<{wide}} {times} {_tokens(run, row)}  {_fates(row)}"
    yield f"  {'in all':<{wide}} {'':>18} {_tokens(run, run.graph.calls)}"


def _longest(views: Sequence[CallView], what: str) -> str:
    times = [_span(view, what) for view in views]
    known = [seconds for seconds in times if seconds is not None]
    return f"{max(known):>7.3f} s" if known else f"{'-':>9}"


def _span(view: CallView, what: str) -> float | None:
    """Seconds in the queue, or from then to its end."""
    begun = started(view)
    end = view.finished
    if what == "queued":
        begun, end = view.queued, begun
    return end - begun if begun is not None and end is not None else None


def _tokens(run: Run, views: Sequence[CallView]) -> str:
    predicted = [run.foreseen[view.id] for view in views if view.id in run.foreseen]
    prompt, shared, answer = tokens(views)
    return f"{prompt:>8} {shared:>8} {sum(predicted) if predicted else '-':>10} {answer:>8}"


def _fates(views: Sequence[CallView]) -> str:
    found = Counter(map(fate, views))
    if len(found) == 1:
        return next(iter(found))
    return ", ".join(f"{number} {name}" for name, number in found.items())


def _told_path(run: Run) -> str:
    if not run.path:
        return "no call was done"
    steps = [
        f"{view.id} ({(view.finished or 0.0) - (view.queued or 0.0):.3f} s)" for view in run.path
    ]
    if len(steps) > _PATH:
        left_out = counted(len(steps) - _PATH, "call")
        steps[_PATH // 2 : -_PATH // 2] = [f"… {left_out} …"]
    return f"{' -> '.join(steps)}: {run.seconds:.3f} s with what the client did"


def _warmth(run: Run) -> str:
    shared = tokens(run.graph.calls)[1]
    if not run.warm_tokens:
        return f"{shared} tokens shared, no more than the run itself explains"
    return (
        f"warm from earlier runs: {run.warm_tokens} of the {shared} shared tokens are not explained "
        "by this run"
    )


def _waste(run: Run) -> str:
    prompt, shared, answer = tokens(run.wasted)
    return (
        f"{counted(len(run.wasted), 'call')}, "
        f"up to {prompt - shared} prompt and {counted(answer, 'answer token')}"
    )
