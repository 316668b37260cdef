import itertools
from typing import Any

import pytest

from parrot_backend.program.graph import Graph
from parrot_backend.program.render import render_call, render_transform
from parrot_integrations.planning.explaining.explain import explain
from parrot_integrations.planning.explaining.overview import overview
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.values import (
    BreakError,
    Prompt,
    PromptMessage,
    Text,
    Unknown,
    Variable,
    concat,
    is_symbolic,
    known,
)


def user(text: Text) -> Prompt:
    return Prompt((PromptMessage("user", text),))


def answer(plan: Plan, text: Text, **parameters: Any) -> Text:
    return plan.call(user(text), parameters).text


def test_a_plan_renders_to_what_the_framework_will_send() -> None:
    plan = Plan()
    instruction = Text(("Summarize: ",))
    parts = [
        answer(plan, instruction + plan.input("part", value), max_tokens=5)
        for value in ("one", "two")
    ]
    answer(plan, concat([Text(("All: ",)), plan.join(parts, "\n")]))
    program = plan.program()
    Graph().add(program)
    values = {**program.variables, "answer-1": "A", "answer-2": "B"}
    values[program.transforms[0].output] = render_transform(program.transforms[0], values)
    rendered = [render_call(call, values) for call in program.calls]
    assert [request.messages[0].content for request in rendered] == [
        "Summarize: one",
        "Summarize: two",
        "All: A\nB",
    ]
    assert [request.max_tokens for request in rendered] == [5, 5, None]
    assert [output.variable for output in program.outputs] == ["answer-3"]


def test_equal_inputs_of_one_name_are_one_variable() -> None:
    plan = Plan()
    assert plan.input("x", "same") == plan.input("x", "same")
    assert plan.input("x", "other") != plan.input("x", "same")
    assert plan.variables == {"x": "same", "x.2": "other"}


@pytest.mark.parametrize("name", ["ünï cödé", "answer-1", "joined-1", "", "a" * 500])
def test_any_field_name_becomes_a_variable_of_its_own(name: str) -> None:
    plan = Plan()
    field = plan.input(name, "value")
    answer(plan, concat([field, plan.join([field], "")]))
    Graph().add(plan.program())


def test_a_parameter_that_the_backend_does_not_take_is_a_break() -> None:
    plan = Plan()
    with pytest.raises(BreakError, match="does not take 'echo'"):
        plan.call(user(Text(("x",))), {"echo": True})
    assert plan.calls == []


def test_neighbouring_literals_are_one_segment() -> None:
    segments = Text(("a", "", "b", Variable("v"), "c")).segments()
    assert [segment.model_dump() for segment in segments] == [
        {"type": "text", "text": "ab"},
        {"type": "variable", "name": "v"},
        {"type": "text", "text": "c"},
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x", False),
        ({"a": [1, ("y",)]}, False),
        ({"a": [Text(("t",))]}, True),
        ((Unknown(),), True),
    ],
)
def test_symbolic_values_are_found_however_deep(value: Any, expected: bool) -> None:
    assert is_symbolic(value) is expected


def test_a_plan_goes_on_from_what_was_submitted() -> None:
    plan = Plan()
    first = answer(plan, answer(plan, plan.input("x", "one")))
    begun, graph = plan.take(), Graph()
    assert begun is not None
    graph.add(begun)
    assert plan.take() is None
    answer(plan, concat([first, plan.input("y", "two"), plan.join([first], "-")]))
    extension = plan.take("throughput")
    assert extension is not None
    graph.add(extension)
    assert list(graph.calls) == ["call-1", "call-2", "call-3"]
    assert [output.objective for output in extension.outputs] == ["throughput"]


def test_what_waits_for_an_unknown_comes_when_it_is_settled_the_first_time() -> None:
    first, second, seen = Unknown(), Unknown(), []
    second.then(lambda: seen.append(second.value))
    second.settle(first)
    assert (seen, first.awaited) == ([], True)
    first.settle("value")
    second.settle("other")
    second.then(lambda: seen.append("late"))
    assert seen == ["value", "late"]
    assert known({"a": [second, ("b", Unknown)]}) == {"a": ["value", ("b", Unknown)]}


def test_a_long_chain_of_unknowns_is_no_deep_recursion() -> None:
    chain = [Unknown() for _ in range(10_000)]
    for earlier, later in itertools.pairwise(chain):
        later.settle(earlier)
    chain[0].settle("value")
    assert chain[-1].value == "value"


def test_a_shared_prefix_ends_at_a_whole_variable() -> None:
    plan = Plan()
    for text in ("left {brace}", "left {bracket}"):
        answer(plan, Text(("Read: ",)) + plan.input("doc", "long") + Text((text,)))
    assert "2 calls (call-1, call-2): [user] Read: {doc}left {bra" in explain(overview(plan))
    other = Plan()
    for value in ("one", "two"):
        answer(other, Text(("Read: ",)) + other.input("doc", value))
    assert "2 calls (call-1, call-2): [user] Read:\n" in explain(overview(other)) + "\n"
