import pytest
from langchain_core.messages import (
    AIMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from parrot_backend.wire.protocol import ChatRequest
from parrot_integrations.langchain.models.messages import to_wire, wire_role

CALL = {"name": "f", "args": {"city": "Köln"}, "id": "1"}
WIRE_CALL = {
    "id": "1",
    "type": "function",
    "function": {"name": "f", "arguments": '{"city": "Köln"}'},
}


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (HumanMessage("hi"), {"role": "user", "content": "hi"}),
        (HumanMessage("hi", name="ann"), {"role": "user", "content": "hi", "name": "ann"}),
        (SystemMessage("be"), {"role": "system", "content": "be"}),
        (AIMessage("yes"), {"role": "assistant", "content": "yes"}),
        (AIMessage(""), {"role": "assistant", "content": ""}),
        (ChatMessage("x", role="developer"), {"role": "developer", "content": "x"}),
        (
            HumanMessage(["a", {"type": "text", "text": "b"}, {"type": "text", "text": " c"}]),
            {"role": "user", "content": "ab c"},
        ),
    ],
)
def test_text_messages(message, wire):
    assert to_wire(message) == wire
    assert wire_role(message) == wire["role"]


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (
            AIMessage("", tool_calls=[CALL]),
            {"role": "assistant", "content": "", "tool_calls": [WIRE_CALL]},
        ),
        (
            AIMessage(
                [
                    {"type": "reasoning", "reasoning": "hm"},
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "1", "name": "f", "input": CALL["args"]},
                ],
                tool_calls=[CALL],
            ),
            {"role": "assistant", "content": "I look.", "tool_calls": [WIRE_CALL]},
        ),
        (
            AIMessage(
                "",
                invalid_tool_calls=[
                    {"name": "f", "args": '{"ci', "id": "2", "error": "cut", "type": "x"}
                ],
            ),
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {"id": "2", "type": "function", "function": {"name": "f", "arguments": '{"ci'}}
                ],
            },
        ),
        (
            ToolMessage("5", tool_call_id="1", name="f", status="error"),
            {"role": "tool", "content": "5", "tool_call_id": "1", "name": "f"},
        ),
        (
            ToolMessage([{"type": "text", "text": "5"}], tool_call_id="1"),
            {"role": "tool", "content": "5", "tool_call_id": "1"},
        ),
    ],
)
def test_tool_calls_and_results(message, wire):
    assert to_wire(message) == wire


def test_the_backend_takes_a_conversation_with_tools():
    messages = [
        SystemMessage("be"),
        HumanMessage("hi"),
        AIMessage("", tool_calls=[CALL]),
        ToolMessage("5", tool_call_id="1"),
    ]
    request = ChatRequest(messages=[to_wire(message) for message in messages])
    assert request.messages[2].tool_calls[0].function.name == "f"
    assert request.messages[3].tool_call_id == "1"


@pytest.mark.parametrize(
    ("message", "named"),
    [
        (HumanMessage([{"type": "image_url", "image_url": {"url": "u"}}]), "'image_url'"),
        (HumanMessage([{"type": "text", "text": "t"}, {"type": "audio"}]), "'audio'"),
        (HumanMessage([{"type": "tool_use"}]), "'tool_use'"),
        (ToolMessage([{"type": "image"}], tool_call_id="1"), "'image'"),
        (FunctionMessage("5", name="f"), "FunctionMessage"),
    ],
)
def test_what_is_not_supported_is_named(message, named):
    with pytest.raises(ValueError, match=f"{named}.*not supported"):
        to_wire(message)
