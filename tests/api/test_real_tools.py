"""Tool calls with the real model, which alone is far too small to call a tool."""

import json

import openai
import pytest
from jsonschema import validate

from tests.tools import ORDER, WEATHER, named

pytestmark = pytest.mark.model
MODEL = "smollm2-135m-instruct"
SCHEMAS = {tool["function"]["name"]: tool["function"]["parameters"] for tool in (ORDER, WEATHER)}


@pytest.fixture
def client(base_url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{base_url}/v1", api_key="none", max_retries=0)


def body(**more: object) -> dict[str, object]:
    user = {"role": "user", "content": "Two pizzas to Main Street 5, and is it warm in Lima?"}
    tools = [WEATHER, ORDER]
    return {"model": MODEL, "messages": [user], "tools": tools, "max_tokens": 150, **more}


def check(choice: object) -> list[str]:
    """The names of the calls of an answer that is nothing but valid calls."""
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    for call in choice.message.tool_calls:
        validate(json.loads(call.function.arguments), SCHEMAS[call.function.name])
    return [call.function.name for call in choice.message.tool_calls]


def test_what_must_be_called_is_called_with_valid_arguments(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        **body(tool_choice="required", parallel_tool_calls=False, n=4, temperature=1.3, seed=1)
    )
    assert [len(check(choice)) for choice in answer.choices] == [1, 1, 1, 1]


def test_a_named_tool_is_called_and_streams(client: openai.OpenAI) -> None:
    request = body(tool_choice=named("order-food"), temperature=0)
    whole = client.chat.completions.create(**request).choices[0]
    assert check(whole) == ["order-food"]
    with client.chat.completions.stream(**request) as stream:
        streamed = stream.get_final_completion().choices[0]
    assert check(streamed) == ["order-food"]
    arguments = [c.message.tool_calls[0].function.arguments for c in (whole, streamed)]
    assert arguments[0] == arguments[1]


def test_a_result_goes_back_and_the_answer_shares_its_prefix(client: openai.OpenAI) -> None:
    request = body(tool_choice=named("get_weather"), temperature=0, max_tokens=60)
    message = client.chat.completions.create(**request).choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "29 degrees"}
    turn = {**body(max_tokens=8, tool_choice="none", temperature=0)}
    turn["messages"] = [*turn["messages"], message, result]
    answer = client.chat.completions.create(**turn)
    assert answer.choices[0].message.content
    assert answer.choices[0].message.tool_calls is None
    cached = answer.usage.prompt_tokens_details.cached_tokens
    assert cached > 0.8 * answer.usage.prompt_tokens


def test_beside_a_response_format_the_answer_is_one_or_the_other(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"warm": {"type": "boolean"}},
        "required": ["warm"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "warm", "schema": schema}}
    answer = client.chat.completions.create(
        **body(response_format=wanted, n=3, temperature=1.5, seed=2, parallel_tool_calls=False)
    )
    for choice in answer.choices:
        if choice.message.tool_calls:
            check(choice)
        else:
            validate(json.loads(choice.message.content), schema)


def test_a_stop_string_ends_text_and_no_call(client: openai.OpenAI) -> None:
    called = client.chat.completions.create(
        **body(tool_choice=named("get_weather"), stop=["city", '"'], temperature=0)
    )
    assert check(called.choices[0]) == ["get_weather"]
    text = client.chat.completions.create(**body(stop=["e"], temperature=0, max_tokens=30))
    assert text.choices[0].finish_reason == "stop"
    assert "e" not in text.choices[0].message.content


def test_a_call_that_is_cut_short_says_so(client: openai.OpenAI) -> None:
    (choice,) = client.chat.completions.create(
        **body(tool_choice=named("order-food"), max_tokens=24, temperature=0)
    ).choices
    assert choice.finish_reason == "length"
    assert choice.message.tool_calls[0].function.arguments.startswith("{")


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"type": "intger"}, "Invalid type: intger"),
        ({"$ref": "#/$defs/none"}, "does not exist"),
        ({"type": "string", "pattern": "(?=a)"}, "look-around"),
    ],
)
def test_a_schema_that_is_none_names_its_tool(
    client: openai.OpenAI, part: dict[str, object], reason: str
) -> None:
    parameters = {"type": "object", "properties": {"a": part}}
    broken = {"type": "function", "function": {"name": "broken", "parameters": parameters}}
    with pytest.raises(openai.BadRequestError, match=reason) as caught:
        client.chat.completions.create(**body(tools=[WEATHER, broken, ORDER]))
    assert (caught.value.param, caught.value.code) == ("tools", "invalid_grammar")
    assert "broken" in caught.value.message
