"""Small plans and runs, written by hand."""

from typing import Any

from parrot_backend.wire.views import CallView, GraphView, VariableView
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.values import Prompt, PromptMessage, Text, concat


def ask(plan: Plan, *texts: Text, **parameters: Any) -> Text:
    return plan.call(Prompt((PromptMessage("user", concat(texts)),)), parameters).text


def map_reduce(parts: int = 2) -> Plan:
    plan = Plan()
    values = ["one", "two", *map(str, range(2, parts))][:parts]
    answers = [ask(plan, Text(("Sum: ",)), plan.input("part", value)) for value in values]
    ask(plan, Text(("All: ",)), plan.join(answers, "+"))
    return plan


def refine(steps: int) -> Plan:
    plan = Plan()
    answer = ask(plan, Text(("Begin ",)), plan.input("topic", "rain"))
    for _ in range(steps):
        answer = ask(plan, Text(("Refine ",)), answer)
    return plan


def ran(call_id: str, queued: float, finished: float, **fields: Any) -> CallView:
    planned = call_id.startswith("call")
    claimed = fields.pop("claimed", True)
    return CallView(
        id=call_id,
        state=fields.pop("state", "done"),
        planned=planned,
        claimed=claimed,
        queued=queued,
        dispatched=queued,
        claimed_at=fields.pop("asked", queued) if claimed and planned else None,
        finished=finished,
        **fields,
    )


def graph(*calls: CallView, **values: str) -> GraphView:
    variables = [VariableView(name=name, state="ready", value=v) for name, v in values.items()]
    return GraphView(calls=list(calls), variables=variables)
