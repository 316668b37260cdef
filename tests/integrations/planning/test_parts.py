"""What of a plan is submitted: not a call that is asked for next anyway, and nothing that needs one."""

from typing import Any

import pytest

from parrot_backend.program.graph import Graph
from parrot_backend.wire.protocol import Program
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.values import Prompt, PromptMessage, Text, Unknown, concat


def call(plan: Plan, text: Text, key: str | None = None) -> Text:
    return plan.call(Prompt((PromptMessage("user", text),)), {}, key=key).text


def ids(program: Program | None) -> list[str]:
    return [] if program is None else [call.id for call in program.calls]


def test_one_call_that_is_asked_for_next_is_held_back() -> None:
    plan = Plan()
    call(plan, plan.input("x", "one"))
    assert plan.take() is None
    assert plan.held == ["call-1"]
    assert ids(plan.program()) == ["call-1"], "it is planned all the same"


def test_two_calls_are_submitted_and_so_is_one_that_waits_for_a_call() -> None:
    plan = Plan()
    first, _ = call(plan, plan.input("x", "one")), call(plan, plan.input("y", "two"))
    assert ids(plan.take()) == ["call-1", "call-2"]
    call(plan, first)
    assert ids(plan.take()) == ["call-3"]
    assert plan.held == []


def test_a_call_behind_something_slow_is_submitted() -> None:
    plan, slow = Plan(), Unknown()
    plan.unknowns["retriever"] = slow
    call(plan, plan.input("x", "one"))
    assert ids(plan.take()) == ["call-1"]


@pytest.mark.parametrize("waiting", [False, True])
def test_something_slow_behind_a_call_is_not_in_front_of_it(waiting: bool) -> None:
    plan = Plan()
    if waiting:  # the call's own step was met before, when its input was not known
        plan.unknowns["model"] = Unknown()
        plan.unknowns["behind"] = Unknown()
    call(plan, plan.input("x", "one"), "model")
    plan.unknowns["further"] = Unknown()
    assert plan.take() is None


def test_what_is_settled_is_not_slow() -> None:
    plan, slow = Plan(), Unknown()
    plan.unknowns["retriever"] = slow
    slow.settle("documents")
    call(plan, plan.input("x", "one"))
    assert plan.take() is None


def test_the_answer_of_a_held_call_is_an_input_of_those_that_read_it() -> None:
    plan = Plan()
    answer = plan.strip(call(plan, plan.input("x", "one"), "model"))
    assert plan.take() is None
    assert plan.awaits("model")
    plan.told("model", " the answer ")
    call(plan, concat([call(plan, answer), plan.input("x", "one")]))
    program = plan.take()
    assert program is not None
    Graph().add(program)
    assert program.variables == {"answer-1": " the answer ", "x": "one"}
    assert [t.output for t in program.transforms] == ["stripped-1"]
    assert ids(program) == ["call-2", "call-3"]


def test_what_needs_an_answer_that_nobody_told_is_left_out() -> None:
    plan = Plan()
    answer = call(plan, plan.input("x", "one"), "model")
    assert plan.take() is None
    second = call(plan, plan.join([answer, answer], "-"))
    call(plan, plan.input("y", "two"))
    call(plan, second)
    call(plan, plan.input("z", "three"))
    program = plan.take()
    assert program is not None
    Graph().add(program)
    assert ids(program) == ["call-3", "call-5"]
    assert plan.held == ["call-1", "call-2", "call-4"]
    assert program.variables == {"y": "two", "z": "three"}


def test_an_extension_declares_what_is_new() -> None:
    plan, graph = Plan(), Graph()
    word = plan.input("x", "one")
    for texts in ([word, word], [word, plan.input("y", "two")]):
        for text in texts:
            call(plan, text)
        program = plan.take()
        assert program is not None
        graph.add(program)
    assert program.variables == {"y": "two"}


@pytest.mark.parametrize("text", ["\ud83d", "fine \udfff"])
def test_a_text_that_is_no_unicode_is_a_break(text: str) -> None:
    plan = Plan()
    whole: list[Any] = [lambda: plan.input("x", text), lambda: call(plan, Text((text,)))]
    for planned in whole:
        with pytest.raises(ValueError, match="no valid Unicode"):
            planned()
    assert (plan.calls, plan.variables) == ([], {})


def test_only_the_groups_of_a_part_s_calls_go_with_it() -> None:
    plan = Plan()
    plan.concurrency = {"run": 2, "other": 3}
    for text in ("one", "two"):
        prompt = Prompt((PromptMessage("user", Text((text,))),))
        plan.call(prompt, {}, concurrency=["run"])
    program = plan.take()
    assert program is not None
    assert program.concurrency == {"run": 2}
    assert [call.concurrency for call in program.calls] == [["run"], ["run"]]
