"""What makes two requests with tools the same, and what messages about calls may be."""

import pytest
from pydantic import ValidationError

from parrot_backend.program.render import render_call
from parrot_backend.wire.protocol import ChatRequest, SemanticCall
from tests.programs import text
from tests.tools import NOW, ORDER, WEATHER, named

USER = {"role": "user", "content": "x"}
CALL = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "noon"}


def key(*messages: object, **parameters: object) -> str:
    body = {"messages": messages or [USER], **parameters}
    return ChatRequest.model_validate(body).claim_key()


@pytest.mark.parametrize(
    ("neutral", "same"),
    [
        ({"tools": []}, {}),
        ({"tools": None, "tool_choice": "none", "parallel_tool_calls": True}, {}),
        ({"tool_choice": "auto", "parallel_tool_calls": False}, {}),
        ({"functions": [], "function_call": None}, {}),
        ({"tools": [NOW], "tool_choice": "auto", "parallel_tool_calls": True}, {"tools": [NOW]}),
        ({"tools": [NOW], "tool_choice": None, "parallel_tool_calls": None}, {"tools": [NOW]}),
    ],
)
def test_values_that_change_nothing_are_the_same_as_none(
    neutral: dict[str, object], same: dict[str, object]
) -> None:
    assert key(**neutral) == key(**same)


def test_everything_about_tools_is_part_of_what_is_claimed() -> None:
    choices = ("none", "required", named("now"))
    different = [
        key(),
        key(tools=[NOW]),
        key(tools=[NOW, WEATHER]),
        key(tools=[NOW], parallel_tool_calls=False),
        *(key(tools=[NOW], tool_choice=choice) for choice in choices),
        key(USER, CALLED, RESULT),
        key(USER, CALLED, {**RESULT, "content": "one"}),
    ]
    assert len(set(different)) == len(different)


def test_an_answer_that_is_sent_back_is_the_same_with_what_openai_adds_to_it() -> None:
    added = {"refusal": None, "audio": None, "function_call": None, "annotations": []}
    assert key(USER, {**CALLED, **added}, RESULT) == key(USER, {**CALLED, "content": ""}, RESULT)
    assert key({**USER, "tool_calls": None}) == key()


def test_a_planned_call_has_the_key_of_its_request() -> None:
    parameters = {"tools": [WEATHER, ORDER], "tool_choice": "required", "parallel_tool_calls": True}
    planned = SemanticCall.model_validate(
        {
            "id": "a",
            "messages": [
                {"role": "user", "content": [s.model_dump() for s in text("{x}")]},
                CALLED,
                {**RESULT, "content": [s.model_dump() for s in text("at {y}")]},
            ],
            "output": "out",
            **parameters,
        }
    )
    rendered = render_call(planned, {"x": "x", "y": "noon"})
    assert rendered.claim_key() == key(USER, CALLED, {**RESULT, "content": "at noon"}, **parameters)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([{"role": "tool", "content": "noon"}], "the id of the call it answers"),
        ([{**USER, "tool_call_id": "c1"}], "the id of the call it answers"),
        ([{**USER, "tool_calls": [CALL]}], "only messages of the assistant"),
        ([USER, RESULT], "messages.1.tool_call_id: no call before it has the id 'c1'"),
        ([RESULT, CALLED], "messages.0.tool_call_id: no call before it"),
        ([USER, CALLED, {**RESULT, "tool_call_id": "c2"}], "no call before it has the id 'c2'"),
    ],
)
def test_a_result_answers_a_call(messages: list[object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        key(*messages)
    planned = [{**m, "content": []} for m in messages]  # type: ignore[dict-item]
    with pytest.raises(ValidationError, match=reason):
        SemanticCall.model_validate({"id": "a", "messages": planned, "output": "out"})
