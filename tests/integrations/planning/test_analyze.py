"""A run beside its plan, over graphs that are written by hand."""

from parrot_backend.wire.views import CallView, GraphView, SessionView, VariableView
from parrot_integrations.planning.analyze import analyze, critical_path
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.values import Prompt, PromptMessage, Text, concat


def ask(plan: Plan, *texts: Text) -> Text:
    return plan.call(Prompt((PromptMessage("user", concat(texts)),)), {}).text


def map_reduce() -> Plan:
    plan = Plan()
    parts = [ask(plan, Text(("Sum: ",)), plan.input("part", part)) for part in ("one", "two")]
    ask(plan, Text(("All: ",)), plan.join(parts, "+"))
    return plan


def ran(call_id: str, queued: float, finished: float, **fields: object) -> CallView:
    state = fields.pop("state", "done")
    return CallView(
        id=call_id,
        state=state,
        planned=call_id.startswith("call"),
        claimed=fields.pop("claimed", True),
        queued=queued,
        finished=finished,
        **fields,
    )


def graph(*calls: CallView, **values: str) -> GraphView:
    variables = [VariableView(name=name, state="ready", value=v) for name, v in values.items()]
    return GraphView(calls=list(calls), variables=variables)


def test_the_critical_path_goes_through_what_ended_last_of_what_was_read() -> None:
    calls = [ran("call-1", 0, 3), ran("call-2", 0, 5), ran("call-3", 5, 7)]
    path = critical_path(map_reduce(), graph(*calls, ran("request-1", 0, 4.9)))
    assert [view.id for view in path] == ["call-2", "call-3"]


def test_behind_a_break_it_goes_to_what_had_ended_before() -> None:
    plan = map_reduce()
    calls = [
        ran("call-1", 0, 1),
        ran("call-2", 0, 2),
        ran("call-3", 2, 3),
        ran("request-1", 4, 6),
        ran("request-2", 4, 5),
    ]
    path = critical_path(plan, graph(*calls))
    assert [view.id for view in path] == ["call-2", "call-3", "request-1"]
    assert critical_path(plan, graph()) == []


def test_predicted_tokens_are_the_shared_part_of_the_prompt() -> None:
    """'Sum: ' are 5 of the 10 characters of the second prompt, so 6 of its 12 tokens."""
    calls = [
        ran("call-1", 0, 1, prompt_tokens=11),
        ran("call-2", 0, 1, prompt_tokens=12, cached_tokens=7, claimed=False, completion_tokens=3),
        ran("call-3", 1, 2, state="cancelled", claimed=False),
    ]
    told = analyze(
        map_reduce(),
        SessionView(id="s", planned=3, claimed=1),
        graph(*calls, **{"part": "one", "part.2": "12345"}),
    )
    (row,) = [line.split() for line in told.splitlines() if line.startswith("  call-2")]
    assert row[-7:] == ["12", "7", "6", "3", "not", "asked", "for"]
    (total,) = [line.split() for line in told.splitlines() if line.startswith("  in all")]
    assert total[-4:] == ["23", "7", "6", "3"]
    assert "2 calls, up to 5 prompt and 3 answer tokens" in told
    assert "3 calls planned, 1 of them claimed" in told
