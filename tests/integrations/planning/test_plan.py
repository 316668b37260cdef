from typing import Any

import pytest

from parrot_backend.program.graph import Graph
from parrot_backend.program.render import render_call, render_transform
from parrot_integrations.planning.explain import explain
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.values import (
    UNKNOWN,
    Answer,
    Prompt,
    PromptMessage,
    Text,
    Variable,
    concat,
    is_symbolic,
)


def user(text: Text) -> Prompt:
    return Prompt((PromptMessage("user", text),))


def answer(plan: Plan, text: Text, **parameters: Any) -> Text:
    found = plan.call(user(text), parameters, where="test")
    assert isinstance(found, Answer)
    return found.text


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
    found = plan.call(user(Text(("x",))), {"tools": [{}]}, where="model")
    assert found == UNKNOWN
    assert plan.calls == []
    assert "does not take 'tools'" in plan.breaks[0].reason


def test_neighbouring_literals_are_one_segment() -> None:
    segments = Text(("a", "", "b", Variable("v"), "c")).segments()
    assert [segment.model_dump() for segment in segments] == [
        {"type": "text", "text": "ab"},
        {"type": "variable", "name": "v"},
        {"type": "text", "text": "c"},
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [("x", False), ({"a": [1, ("y",)]}, False), ({"a": [Text(("t",))]}, True), ((UNKNOWN,), True)],
)
def test_symbolic_values_are_found_however_deep(value: Any, expected: bool) -> None:
    assert is_symbolic(value) is expected


def test_a_shared_prefix_ends_at_a_whole_variable() -> None:
    plan = Plan()
    for text in ("left {brace}", "left {bracket}"):
        answer(plan, Text(("Read: ",)) + plan.input("doc", "long") + Text((text,)))
    assert "2 calls (call-1 … call-2): [user] Read: {doc}left {bra" in explain(plan)
    other = Plan()
    for value in ("one", "two"):
        answer(other, Text(("Read: ",)) + other.input("doc", value))
    assert "2 calls (call-1 … call-2): [user] Read:\n" in explain(other) + "\n"
