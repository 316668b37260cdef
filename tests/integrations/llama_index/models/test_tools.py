"""Tools of `Parrot`, on a real server over an engine that says what it is told to."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.base.llms import types
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms.llm import ToolSelection

from parrot_integrations.client.errors import InvalidRequestError
from parrot_integrations.llama_index import Parrot
from tests.integrations.llama_index.models.scripted import get_weather, now, scripted
from tests.integrations.replies import Reply, replying

TOOLS = [get_weather, now]


@pytest.fixture(scope="module")
def llm() -> Iterator[Parrot]:
    with scripted() as (url, _):
        yield Parrot(base_url=url, temperature=0)


def called(selections: list[ToolSelection]) -> list[tuple[str, dict[str, Any]]]:
    assert all(selection.tool_id for selection in selections)
    return [(selection.tool_name, selection.tool_kwargs) for selection in selections]


LIMA = ("get_weather", {"city": "Lima", "unit": "celsius"})


# What is sent


def test_what_a_chat_with_tools_sends(llm: Parrot) -> None:
    history = [ChatMessage("before")]
    arguments = llm._prepare_chat_with_tools(
        TOOLS, user_msg="now", chat_history=history, allow_parallel_tool_calls=True, seed=1
    )
    body = llm._body(**arguments)
    assert [message["content"] for message in body["messages"]] == ["before", "now"]
    assert [tool["function"]["name"] for tool in body["tools"]] == ["get_weather", "now"]
    parameters = body["tools"][0]["function"]["parameters"]
    assert parameters["properties"].keys() == {"city", "unit"}
    assert body["tool_choice"] == "auto"
    assert body["parallel_tool_calls"] is True
    assert body["seed"] == 1
    assert len(history) == 1
    message = llm._prepare_chat_with_tools([], ChatMessage("x", role="system"))
    assert message == {"messages": [ChatMessage("x", role="system")]}


@pytest.mark.parametrize(
    ("choice", "wired"),
    [
        ({}, "auto"),
        ({"tool_required": True}, "required"),
        ({"tool_choice": "any"}, "required"),
        ({"tool_choice": "none", "tool_required": True}, "none"),
        ({"tool_choice": "now"}, {"type": "function", "function": {"name": "now"}}),
        ({"tool_choice": {"type": "function"}}, {"type": "function"}),
    ],
)
def test_every_form_of_a_choice(llm: Parrot, choice: dict[str, Any], wired: Any) -> None:
    arguments = llm._prepare_chat_with_tools_compat(TOOLS, "x", **choice)
    assert arguments["tool_choice"] == wired
    assert arguments["parallel_tool_calls"] is False


def test_a_choice_that_there_is_not(llm: Parrot) -> None:
    with pytest.raises(ValueError, match=r"'soon', and there is no such tool; .*'now'"):
        llm.chat_with_tools(TOOLS, "x", tool_choice="soon")


def test_strict_goes_with_the_tools(llm: Parrot) -> None:
    (tool,) = llm._prepare_chat_with_tools([now], strict=True)["tools"]
    assert tool["function"]["strict"] is True
    (tool,) = llm._prepare_chat_with_tools([now])["tools"]
    assert "strict" not in tool["function"]


# What comes back


async def test_all_four_ways_give_the_same(llm: Parrot) -> None:
    asked: dict[str, Any] = {"user_msg": "both", "allow_parallel_tool_calls": True}
    streamed = list(llm.stream_chat_with_tools(TOOLS, **asked))
    astreamed = [r async for r in await llm.astream_chat_with_tools(TOOLS, **asked)]
    responses = [
        llm.chat_with_tools(TOOLS, **asked),
        await llm.achat_with_tools(TOOLS, **asked),
        streamed[-1],
        astreamed[-1],
    ]
    for response in responses:
        assert response.message.content == "I look."
        calls = llm.get_tool_calls_from_response(response)
        assert called(calls) == [LIMA, ("now", {})]
        assert response.additional_kwargs["finish_reason"] == "tool_calls"
        assert response.additional_kwargs["completion_tokens"] > 0
        told = response.message.additional_kwargs["tool_calls"]
        assert [call["function"]["name"] for call in told] == ["get_weather", "now"]
        assert json.loads(told[0]["function"]["arguments"])["city"] == "Lima"


def test_streamed_calls_grow(llm: Parrot) -> None:
    calls = [
        llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)
        for response in llm.stream_chat_with_tools([get_weather], "call")
    ]
    cities = [call[0].tool_kwargs.get("city") for call in calls if call]
    grown = list(dict.fromkeys(cities))
    assert grown[0] is None
    assert grown[-1] == "Lima"
    assert len(grown) > 3
    assert all("Lima".startswith(city) for city in grown[1:])


@pytest.mark.skipif(not hasattr(types, "ToolCallBlock"), reason="has no blocks of calls")
def test_calls_are_blocks_where_there_are_such(llm: Parrot) -> None:
    message = llm.chat_with_tools(TOOLS, "both", allow_parallel_tool_calls=True).message
    assert [block.block_type for block in message.blocks] == ["text", "tool_call", "tool_call"]
    only = llm.chat_with_tools(TOOLS, "call").message
    assert [block.block_type for block in only.blocks] == ["tool_call"]
    assert ChatMessage.model_validate_json(only.model_dump_json()) == only


def test_only_one_call_is_left_where_several_are_not_allowed() -> None:
    calls = [
        {"id": name, "type": "function", "function": {"name": name, "arguments": "{}"}}
        for name in ("f", "g")
    ]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    reply = {"model": "m", "choices": [{"message": message, "finish_reason": "tool_calls"}]}
    with replying(Reply(body=json.dumps(reply).encode())) as server:
        llm = Parrot(base_url=server.url)
        response = llm.chat_with_tools(TOOLS, "x")
        assert called(llm.get_tool_calls_from_response(response)) == [("f", {})]
        assert response.message.additional_kwargs["tool_calls"] == calls[:1]
        response = llm.chat_with_tools(TOOLS, "x", allow_parallel_tool_calls=True)
        assert len(llm.get_tool_calls_from_response(response)) == 2


def test_a_call_that_was_cut_off_is_not_made(llm: Parrot) -> None:
    function = {"name": "f", "arguments": '{"path": "/home/a'}
    message = {"role": "assistant", "tool_calls": [{"id": "1", "function": function}]}
    reply = {"model": "m", "choices": [{"message": message, "finish_reason": "length"}]}
    with replying(Reply(body=json.dumps(reply).encode())) as server:
        cut = Parrot(base_url=server.url).chat_with_tools(TOOLS, "x")
    with pytest.raises(ValueError, match=r"Call of tool 'f': .*raise max_tokens"):
        llm.get_tool_calls_from_response(cut)


def test_no_call_is_an_error_where_one_is_wanted(llm: Parrot) -> None:
    response = llm.chat_with_tools(TOOLS, "abc")
    assert response.message.content == "cba"
    assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
    with pytest.raises(ValueError, match="at least one tool call"):
        llm.get_tool_calls_from_response(response)


@pytest.mark.parametrize("arguments", ["", "[1]", "nonsense"])
def test_arguments_that_are_no_object_are_none(llm: Parrot, arguments: str) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    message = ChatMessage("", role="assistant", additional_kwargs={"tool_calls": [call]})
    assert called(llm.get_tool_calls_from_response(ChatResponse(message=message))) == [("f", {})]


def test_a_conversation_goes_on_after_the_tool(llm: Parrot) -> None:
    asked = llm.chat_with_tools(TOOLS, "call").message
    call_id = asked.additional_kwargs["tool_calls"][0]["id"]
    result = ChatMessage("Lima is sunny", role="tool", additional_kwargs={"tool_call_id": call_id})
    answer = llm.chat_with_tools(TOOLS, chat_history=[ChatMessage("call"), asked, result])
    assert answer.message.content == "ynnus si amiLllac"


# Calling them


async def test_predict_and_call(llm: Parrot) -> None:
    for response in (
        llm.predict_and_call(TOOLS, "call"),
        await llm.apredict_and_call(TOOLS, "call"),
    ):
        assert response.response == "Lima is sunny"
        assert response.sources[0].raw_input["kwargs"] == LIMA[1]


async def test_predict_and_call_several_at_once(llm: Parrot) -> None:
    for response in (
        llm.predict_and_call(TOOLS, "both", allow_parallel_tool_calls=True),
        await llm.apredict_and_call(TOOLS, "both", allow_parallel_tool_calls=True),
    ):
        assert response.response == "Lima is sunny\n\nnoon"


def test_predict_and_call_where_nothing_is_called(llm: Parrot) -> None:
    response = llm.predict_and_call(TOOLS, "abc", error_on_no_tool_call=False)
    assert response.response == "cba"
    with pytest.raises(ValueError, match="at least one"):
        llm.predict_and_call(TOOLS, "abc")


def test_a_tool_that_fails(llm: Parrot) -> None:
    from llama_index.core.tools import FunctionTool

    def fail(city: str, unit: str) -> str:
        raise RuntimeError("no weather today")

    tool = FunctionTool.from_defaults(fail, name="get_weather")
    assert "no weather today" in llm.predict_and_call([tool], "call").response
    with pytest.raises(ValueError, match="no weather today"):
        llm.predict_and_call([tool], "call", error_on_tool_error=True)


def test_tools_of_ones_own_are_refused_by_the_server_by_name(llm: Parrot) -> None:
    with pytest.raises(InvalidRequestError, match="tools"):
        llm.chat([ChatMessage("x")], tools=[{"type": "function"}])
