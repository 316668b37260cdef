"""Tools of `ChatParrot`, on a real server over an engine that says what it is told to."""

import json
from collections.abc import Iterator
from typing import Any, TypedDict

import pytest
from langchain_core import exceptions
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from parrot_integrations.client.chat.choices import wire_tool_choice
from parrot_integrations.langchain import ChatParrot
from parrot_integrations.langchain.models.tools import wire_response_format, wire_tools
from tests.doubles import ScriptedEngine
from tests.integrations.replies import Reply, replying
from tests.servers import serving
from tests.tools import written

LIMA = written("get_weather", city="Lima", unit="celsius")
ANSWERS = {
    "call": LIMA,
    "both": f"I look.\n{LIMA}\n{written('now')}",
    "cut": LIMA[:-30],
}


@tool
def get_weather(city: str, unit: str = "celsius") -> str:
    """The weather in a city."""
    return f"{city} is sunny"


@tool
def now() -> str:
    """The time."""
    return "noon"


class Weather(BaseModel):
    """The weather in a city."""

    city: str = Field(description="Its name")


class WeatherDict(TypedDict):
    """The weather in a city."""

    city: str


@pytest.fixture(scope="module")
def llm() -> Iterator[ChatParrot]:
    with serving(ScriptedEngine(lambda prompt: ANSWERS.get(prompt, prompt[::-1]))) as url:
        yield ChatParrot(base_url=url, temperature=0)


# What is bound


@pytest.mark.parametrize("given", [get_weather, Weather, WeatherDict, wire_tools([Weather])[0]])
def test_every_kind_of_tool(given: Any) -> None:
    (wired,) = wire_tools([given])
    assert wired["type"] == "function"
    assert wired["function"]["description"].startswith("The weather")
    assert wired["function"]["parameters"]["properties"]["city"]["type"] == "string"


@pytest.mark.parametrize(
    ("choice", "wired"),
    [
        (None, None),
        (False, None),
        (True, "required"),
        ("any", "required"),
        ("required", "required"),
        ("auto", "auto"),
        ("none", "none"),
        ("now", {"type": "function", "function": {"name": "now"}}),
        ({"type": "function", "function": {"name": "now"}},) * 2,
    ],
)
def test_every_form_of_a_choice(choice: Any, wired: Any) -> None:
    assert wire_tool_choice(choice, wire_tools([get_weather, now])) == wired
    bound = ChatParrot(base_url="http://127.0.0.1:9").bind_tools([now], tool_choice=choice)
    assert bound.kwargs.get("tool_choice") == wired


def test_a_choice_that_there_is_not() -> None:
    with pytest.raises(ValueError, match=r"'soon', and there is no such tool; .*'now'"):
        wire_tool_choice("soon", wire_tools([now]))
    with pytest.raises(TypeError, match="tool_choice is a int"):
        wire_tool_choice(3, wire_tools([now]))  # type: ignore[arg-type]


def test_what_is_bound_is_what_is_sent(llm: ChatParrot) -> None:
    bound = llm.bind_tools(
        [get_weather], tool_choice="any", strict=True, parallel_tool_calls=False, seed=1
    )
    body = llm.request_body([HumanMessage("x")], **bound.kwargs)
    (wired,) = body["tools"]
    assert wired["function"]["strict"] is True
    assert wired["function"]["parameters"]["additionalProperties"] is False
    assert {k: v for k, v in body.items() if k not in ("messages", "tools")} == {
        "temperature": 0,
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "seed": 1,
    }


def test_a_response_format_beside_tools_as_create_agent_binds_them(llm: ChatParrot) -> None:
    schema = {"name": "Weather", "schema": Weather.model_json_schema()}
    given = {"type": "json_schema", "json_schema": schema}
    bound = llm.bind_tools([], strict=True, response_format=given)
    assert bound.kwargs == {"tools": [], "response_format": given}
    assert bound.invoke("abc").content == "cba"


# What comes back


def test_calls_and_text(llm: ChatParrot) -> None:
    message = llm.bind_tools([get_weather, now]).invoke("both")
    assert message.content == "I look."
    assert [(c["name"], c["args"]) for c in message.tool_calls] == [
        ("get_weather", {"city": "Lima", "unit": "celsius"}),
        ("now", {}),
    ]
    assert message.invalid_tool_calls == []
    assert message.response_metadata["finish_reason"] == "tool_calls"
    assert [b["type"] for b in message.content_blocks] == ["text", "tool_call", "tool_call"]


async def test_all_four_ways_give_the_same(llm: ChatParrot) -> None:
    bound = llm.bind_tools([get_weather, now])
    streamed: list[AIMessageChunk] = list(bound.stream("both"))
    astreamed = [chunk async for chunk in bound.astream("both")]
    messages = [
        bound.invoke("both"),
        await bound.ainvoke("both"),
        sum(streamed, AIMessageChunk("")),
        sum(astreamed, AIMessageChunk("")),
    ]
    seen = [
        (m.text, [(c["name"], c["args"]) for c in m.tool_calls], {**m.response_metadata, "id": ""})
        for m in messages
    ]
    assert seen[1:] == seen[:1] * 3
    assert all(c["id"] for message in messages for c in message.tool_calls)


def test_arguments_are_streamed_piece_by_piece(llm: ChatParrot) -> None:
    chunks = list(llm.bind_tools([get_weather]).stream("call"))
    pieces = [piece for chunk in chunks for piece in chunk.tool_call_chunks]
    assert pieces[0]["name"] == "get_weather"
    assert {piece["index"] for piece in pieces} == {0}
    assert len(pieces) > 5
    assert json.loads("".join(p["args"] or "" for p in pieces)) == {
        "city": "Lima",
        "unit": "celsius",
    }


def test_arguments_that_are_no_json_are_invalid_calls() -> None:
    calls = [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
        for arguments in ('{"a', "[1]", "")
    ]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    reply = {"model": "m", "choices": [{"message": message, "finish_reason": "length"}]}
    with replying(Reply(body=json.dumps(reply).encode())) as server:
        answer = ChatParrot(base_url=server.url).invoke("x")
    assert [call["args"] for call in answer.invalid_tool_calls] == ['{"a', "[1]"]
    assert [call["args"] for call in answer.tool_calls] == [{}]
    assert "not a JSON object" in answer.invalid_tool_calls[1]["error"]


def test_a_conversation_goes_on_after_the_tool(llm: ChatParrot) -> None:
    bound = llm.bind_tools([get_weather, now])
    asked = bound.invoke("call")
    assert isinstance(asked, AIMessage)
    result = get_weather.invoke(asked.tool_calls[0])
    assert isinstance(result, ToolMessage)
    assert bound.invoke([HumanMessage("call"), asked, result]).content == "ynnus si amiLllac"


def test_a_result_without_its_call_is_refused_by_name(llm: ChatParrot) -> None:
    with pytest.raises(exceptions.ModelInvalidRequestError, match="tool_call_id"):
        llm.invoke([HumanMessage("x"), ToolMessage("5", tool_call_id="1")])


# Formats of answers


class Node(BaseModel):
    """A tree."""

    value: int
    children: list["Node"] = Field(max_length=2)


def test_a_schema_that_refers_to_itself_is_kept_whole() -> None:
    schema = wire_response_format(Node)["json_schema"]["schema"]
    assert schema["$ref"] == "#/$defs/Node"
    assert schema["$defs"]["Node"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}


@pytest.mark.parametrize("schema", [Weather, WeatherDict, wire_tools([Weather])[0]["function"]])
def test_every_kind_of_schema_is_a_response_format(schema: Any) -> None:
    wired = wire_response_format(schema)
    assert wired["type"] == "json_schema"
    assert wired["json_schema"]["schema"]["properties"].keys() == {"city"}
    assert wire_response_format(wired) == wired
    assert wire_response_format(wired["json_schema"]) == wired
    strict = wire_response_format(schema, strict=True)["json_schema"]
    assert strict["strict"] is True
    with pytest.raises(ValueError, match="give it once"):
        wire_response_format({"type": "json_schema", "json_schema": strict}, strict=False)
