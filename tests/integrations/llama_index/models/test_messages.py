"""LlamaIndex's messages on the wire."""

from typing import Any

import pytest
from llama_index.core.base.llms import types
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock

from parrot_integrations.client.errors import InvalidRequestError
from parrot_integrations.llama_index import Parrot
from parrot_integrations.llama_index.models.messages import to_wire

CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": "é"}'}}


def wired(message: ChatMessage) -> dict[str, Any]:
    (wire,) = to_wire([message])
    return wire


@pytest.mark.parametrize(
    ("role", "wire"),
    [
        ("system", "system"),
        ("developer", "system"),
        ("user", "user"),
        ("assistant", "assistant"),
        ("chatbot", "assistant"),
        ("model", "assistant"),
        ("tool", "tool"),
        ("function", "tool"),
    ],
)
def test_every_role(role: str, wire: str) -> None:
    assert wired(ChatMessage("x", role=role)) == {"role": wire, "content": "x"}


def test_several_texts_are_the_messages_content() -> None:
    message = ChatMessage([TextBlock(text="a"), TextBlock(text="b")])
    assert wired(message)["content"] == message.content == "a\nb"
    assert wired(ChatMessage(blocks=[])) == {"role": "user", "content": ""}


def test_a_tools_result_has_the_id_of_its_call_and_nothing_else_has() -> None:
    told = {"tool_call_id": "1", "name": "f"}
    wire = {"content": "5", "name": "f", "tool_call_id": "1"}
    assert wired(ChatMessage("5", role="tool", additional_kwargs=told)) == {**wire, "role": "tool"}
    answer = wired(ChatMessage("5", role="assistant", additional_kwargs=told))
    assert "tool_call_id" not in answer


def test_calls_that_are_told_beside_the_message() -> None:
    class Function:
        def model_dump(self) -> dict[str, Any]:
            return {**CALL, "index": 0, "function": {"name": "f", "arguments": {"a": "é"}}}

    for call in (CALL, Function()):
        message = ChatMessage("x", role="assistant", additional_kwargs={"tool_calls": [call]})
        assert wired(message) == {"role": "assistant", "content": "x", "tool_calls": [CALL]}
    assert "tool_calls" not in wired(ChatMessage("x", additional_kwargs={"tool_calls": [CALL]}))


@pytest.mark.skipif(not hasattr(types, "ToolCallBlock"), reason="has no blocks of calls")
@pytest.mark.parametrize("arguments", [{"a": "é"}, '{"a": "é"}'])
def test_calls_that_are_blocks_go_before_those_beside(arguments: Any) -> None:
    block = types.ToolCallBlock(tool_call_id="1", tool_name="f", tool_kwargs=arguments)
    message = ChatMessage([block], role="assistant", additional_kwargs={"tool_calls": [CALL, CALL]})
    assert wired(message) == {"role": "assistant", "content": "", "tool_calls": [CALL]}


def test_thoughts_and_cache_points_are_left_out() -> None:
    kinds = {"ThinkingBlock": {"content": "hm"}, "CachePoint": {"cache_control": {"type": "x"}}}
    for kind, content in kinds.items():
        if hasattr(types, kind):
            block = getattr(types, kind)(**content)
            assert wired(ChatMessage([block, TextBlock(text="a")]))["content"] == "a"


def test_what_is_not_text_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="ImageBlock is not supported"):
        to_wire([ChatMessage([ImageBlock(url="http://127.0.0.1/i.png")])])
    told = {"tool_calls": [object()]}
    with pytest.raises(ValueError, match=r"additional_kwargs\['tool_calls'\] has a object"):
        to_wire([ChatMessage("x", role="assistant", additional_kwargs=told)])


def test_a_result_without_its_call_is_refused_by_name(scripted_url: str) -> None:
    llm = Parrot(base_url=scripted_url)
    with pytest.raises(InvalidRequestError, match="tool_call_id"):
        llm.chat([ChatMessage("5", role="tool", additional_kwargs={"tool_call_id": "1"})])
    with pytest.raises(InvalidRequestError, match="tool_call_id"):
        llm.chat([ChatMessage("5", role="function")])
