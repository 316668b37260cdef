"""A run beside its plan: what was predicted, what came of it, and what it cost."""

from collections.abc import Iterator, Mapping, Sequence

from parrot_backend.program.graph import Graph, inputs_of
from parrot_backend.wire.protocol import SemanticCall
from parrot_backend.wire.views import CallView, GraphView, SessionView
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.sharing import Share, counted, length, marked, shares

# A call is handed over at the instant at which the one that it waits for ends, which is noted next.
_SIMULTANEOUS = 0.01


def analyze(plan: Plan, counts: SessionView, graph: GraphView) -> str:
    """What was predicted and what happened, as text for a terminal.

    Args:
        plan: what was submitted, with what it grew by.
        counts: those of its session when it was over.
        graph: the session's calls, with their times and tokens, and its variables' values.
    """
    lines = [
        f"{counted(counts.planned, 'call')} planned, {counts.claimed} of them claimed, "
        f"{counts.unplanned} not foreseen",
        "",
        "Run (tokens shared: found in the prefix cache; predicted: common with an earlier call)",
        *_rows(plan, graph),
        "",
        f"Critical path: {_told_path(critical_path(plan, graph))}",
        f"Speculation wasted: {_waste(graph)}",
    ]
    return "\n".join(lines)


def predicted_tokens(
    call: SemanticCall, share: Share | None, view: CallView, values: Mapping[str, str]
) -> int:
    """Prompt tokens that the plan foresaw to be shared: their part of the prompt's characters."""
    whole = length(marked(call), values)
    if share is None or not whole:
        return 0
    return round(view.prompt_tokens * length(share.prefix, values) / whole)


def critical_path(plan: Plan, graph: GraphView) -> list[CallView]:
    """The calls that the end was waiting for, in order.

    Before a planned call it was the one of those that it reads from which ended last; before any
    other, and behind a graph break, the last that had ended when it was queued.
    """
    ended = [view for view in graph.calls if view.finished and view.state == "done"]
    by_id, path = {view.id: view for view in ended}, []
    reads = _calls_read(plan)
    current = max(ended, key=_finished, default=None)
    while current is not None:
        path.append(current)
        queued = (current.queued or 0.0) + _SIMULTANEOUS
        before = [by_id[name] for name in reads.get(current.id, []) if name in by_id]
        before = before or [view for view in ended if _finished(view) <= queued]
        current = max((view for view in before if view not in path), key=_finished, default=None)
    return path[::-1]


def _calls_read(plan: Plan) -> dict[str, list[str]]:
    """By call id, the calls whose answers it reads, also through transforms."""
    graph = Graph()
    graph.add(plan.program())
    found: dict[str, list[str]] = {}
    for call in plan.calls:
        stack, found[call.id] = inputs_of(call), []
        while stack:
            producer = graph.producers[stack.pop()]
            if isinstance(producer, SemanticCall):
                found[call.id].append(producer.id)
            elif producer is not None:
                stack += inputs_of(producer)
    return found


def _rows(plan: Plan, graph: GraphView) -> Iterator[str]:
    foreseen = _foreseen(plan, graph)
    yield "  call            queued      run   prompt   shared  predicted   answer"
    for view in graph.calls:
        times = f"{_seconds(view.queued, _started(view))} {_seconds(_started(view), view.finished)}"
        yield f"  {view.id:<12} {times} {_tokens([view], foreseen)}  {_fate(view)}"
    yield f"  {'in all':<30} {_tokens(graph.calls, foreseen)}"


def _foreseen(plan: Plan, graph: GraphView) -> dict[str, int]:
    """The predicted tokens of each planned call."""
    views = {view.id: view for view in graph.calls}
    values = {v.name: v.value for v in graph.variables if v.value is not None}
    shared = shares(plan.calls)
    return {
        call.id: predicted_tokens(call, shared.get(call.id), views[call.id], values)
        for call in plan.calls
        if call.id in views
    }


def _tokens(views: Sequence[CallView], foreseen: Mapping[str, int]) -> str:
    predicted = [foreseen[view.id] for view in views if view.id in foreseen]
    prompt = sum(view.prompt_tokens for view in views)
    shared = sum(view.cached_tokens for view in views)
    answer = sum(view.completion_tokens for view in views)
    return f"{prompt:>8} {shared:>8} {sum(predicted) if predicted else '-':>10} {answer:>8}"


def _fate(view: CallView) -> str:
    if view.state != "done":
        return view.state
    if not view.planned:
        return "not foreseen"
    return "claimed" if view.claimed else "not asked for"


def _started(view: CallView) -> float | None:
    """When the engine began; the first token, where the engine does not tell."""
    return view.started or view.first_token


def _finished(view: CallView) -> float:
    return view.finished or 0.0


def _seconds(start: float | None, end: float | None) -> str:
    return f"{end - start:>6.3f} s" if start is not None and end is not None else f"{'-':>8}"


def _told_path(path: list[CallView]) -> str:
    if not path:
        return "no call was done"
    steps = [f"{view.id} ({_finished(view) - (view.queued or 0.0):.3f} s)" for view in path]
    whole = _finished(path[-1]) - (path[0].queued or 0.0)
    return f"{' -> '.join(steps)}: {whole:.3f} s"


def _waste(graph: GraphView) -> str:
    wasted = [view for view in graph.calls if view.planned and not view.claimed]
    prompt = sum(view.prompt_tokens - view.cached_tokens for view in wasted)
    answer = sum(view.completion_tokens for view in wasted)
    return (
        f"{counted(len(wasted), 'call')}, "
        f"up to {prompt} prompt and {counted(answer, 'answer token')}"
    )
