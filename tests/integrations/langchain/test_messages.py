import pytest
from langchain_core.messages import (
    AIMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from parrot_integrations.langchain.messages import to_wire, wire_role


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
    ("message", "named"),
    [
        (HumanMessage([{"type": "image_url", "image_url": {"url": "u"}}]), "'image_url'"),
        (HumanMessage([{"type": "text", "text": "t"}, {"type": "audio"}]), "'audio'"),
        (AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "1"}]), "tool_calls"),
        (ToolMessage("5", tool_call_id="1"), "ToolMessage"),
        (FunctionMessage("5", name="f"), "FunctionMessage"),
    ],
)
def test_what_is_not_supported_is_named(message, named):
    with pytest.raises(ValueError, match=f"{named}.*not supported"):
        to_wire(message)
