"""What is no text, and JSON that is nested too deep, is refused where it comes in, and named."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from parrot_backend.wire.parameters import WireModel
from parrot_backend.wire.protocol import ChatRequest, Program, SessionRequest, SessionsAlive
from parrot_backend.wire.text_protocol import CompletionRequest, TokenizeRequest
from parrot_backend.wire.unicode import DEEPEST_JSON, checked_json, checked_text

HALF = "x\ud800"
USER = {"role": "user", "content": "x"}


def deep(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def chat(**fields: Any) -> tuple[type[WireModel], dict[str, Any]]:
    return ChatRequest, {"messages": [USER], **fields}


def tool(**fields: Any) -> tuple[type[WireModel], dict[str, Any]]:
    return chat(tools=[{"type": "function", "function": {"name": "f", **fields}}])


def schema(schema: Any) -> tuple[type[WireModel], dict[str, Any]]:
    named = {"name": "n", "schema": schema}
    return chat(response_format={"type": "json_schema", "json_schema": named})


def called(arguments: str) -> tuple[type[WireModel], dict[str, Any]]:
    calls = [{"id": "1", "function": {"name": "f", "arguments": arguments}}]
    return ChatRequest, {"messages": [{"role": "assistant", "tool_calls": calls}]}


def program(**fields: Any) -> tuple[type[WireModel], dict[str, Any]]:
    return Program, fields


def planned(**fields: Any) -> tuple[type[WireModel], dict[str, Any]]:
    segments = [{"role": "user", "content": [{"type": "text", "text": "x"}]}]
    return program(calls=[{"id": "a", "output": "o", "messages": segments, **fields}])


def transform(**fields: Any) -> tuple[type[WireModel], dict[str, Any]]:
    return program(transforms=[{"inputs": [[]], "output": "o", **fields}])


IN_SCHEMA = "response_format.json_schema.json_schema.schema"
ARGUMENTS = "messages.0.tool_calls.0.function.arguments"
CHOICE = {"type": "function", "function": {"name": HALF}}
TEXT = [{"role": "user", "content": [{"type": "text", "text": HALF}]}]


@pytest.mark.parametrize(
    ("request_of", "field"),
    [
        (chat(messages=[{**USER, "content": HALF}]), "messages.0.content"),
        (chat(messages=TEXT), "messages.0.content"),
        (chat(messages=[{**USER, "name": HALF}]), "messages.0.name"),
        (chat(messages=[{"role": HALF, "content": "x"}]), "messages.0.role"),
        (chat(messages=[{**USER, HALF: "x"}]), "messages.0"),
        (chat(model=HALF), "model"),
        (chat(stop=["x", HALF]), "stop.1"),
        (
            chat(tool_choice={"type": "function", "function": {"name": HALF}}),
            "tool_choice.function.function.name",
        ),
        (schema({"enum": [HALF]}), IN_SCHEMA),
        (schema({"properties": {HALF: {}}}), IN_SCHEMA),
        (schema(deep(DEEPEST_JSON + 1)), IN_SCHEMA),
        (chat(structured_outputs={"json": deep(DEEPEST_JSON + 1)}), "structured_outputs.json"),
        (chat(structured_outputs={"json": "[" * 100_000}), "structured_outputs.json"),
        (chat(structured_outputs={"json": json.dumps([HALF])}), "structured_outputs.json"),
        (chat(structured_outputs={"regex": HALF}), "structured_outputs.regex"),
        (chat(structured_outputs={"grammar": HALF}), "structured_outputs.grammar"),
        (chat(structured_outputs={"choice": ["x", HALF]}), "structured_outputs.choice.1"),
        (tool(description=HALF), "tools.0.function.description"),
        (tool(parameters={"a": HALF}), "tools.0.function.parameters"),
        (tool(parameters=deep(DEEPEST_JSON + 1)), "tools.0.function.parameters"),
        (called(HALF), ARGUMENTS),
        (called(json.dumps({"a": HALF})), ARGUMENTS),
        (called("[" * 100_000), ARGUMENTS),
        ((CompletionRequest, {"prompt": HALF}), "prompt"),
        ((CompletionRequest, {"prompt": [[1, 2], HALF]}), "prompt"),
        ((TokenizeRequest, {"prompt": HALF}), "prompt"),
        ((TokenizeRequest, {"prompt": "x", "model": HALF}), "model"),
        ((SessionRequest, {"id": HALF}), "id"),
        ((SessionRequest, {"thread": HALF}), "thread"),
        ((SessionRequest, {"tags": ["x", HALF]}), "tags.1"),
        ((SessionRequest, {"closes": [HALF]}), "closes.0"),
        ((SessionsAlive, {"sessions": [HALF]}), "sessions.0"),
        (program(variables={"a": HALF}), "variables.a"),
        (program(texts=["x", HALF]), "texts.1"),
        (program(outputs=[{"variable": HALF}]), "outputs.0.variable"),
        (planned(id=HALF), "calls.0.id"),
        (planned(messages=TEXT), "calls.0.messages.0.content.0.text.text"),
        (planned(output=HALF), "calls.0.output"),
        (planned(concurrency=[HALF]), "calls.0.concurrency.0"),
        (planned(stop=HALF), "calls.0.stop.0"),
        (transform(separator=HALF), "transforms.0.separator"),
        (transform(op="strip", characters=HALF), "transforms.0.characters"),
        (transform(op="replace", old=HALF, new="x"), "transforms.0.old"),
        (transform(op="replace", old="x", new=HALF), "transforms.0.new"),
        (transform(op="removeprefix", prefix=HALF), "transforms.0.prefix"),
        (transform(op="removesuffix", suffix=HALF), "transforms.0.suffix"),
        (transform(op="json_field", path=["x", HALF]), "transforms.0.path"),
    ],
)
def test_it_is_refused_where_it_comes_in(
    request_of: tuple[type[WireModel], dict[str, Any]], field: str
) -> None:
    model, body = request_of
    with pytest.raises(ValidationError) as caught:
        model.model_validate(body)
    problems = caught.value.errors()
    assert ".".join(map(str, problems[0]["loc"])) == field
    "".join(problem["msg"] for problem in problems).encode()


@pytest.mark.parametrize("table", ["variables", "concurrency"])
def test_a_name_that_is_no_text_is_refused_with_its_table(table: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Program.model_validate({table: {HALF: 1}})
    assert caught.value.errors()[0]["loc"][0] == table


@pytest.mark.parametrize(
    "request_of",
    [
        schema(deep(DEEPEST_JSON)),
        tool(parameters=deep(DEEPEST_JSON)),
        chat(structured_outputs={"json": json.dumps(deep(DEEPEST_JSON))}),
        called('{"cut": "sho'),
        called(json.dumps({"a": "\N{GRINNING FACE}"})),
    ],
)
def test_what_is_deep_or_odd_but_whole_is_taken(
    request_of: tuple[type[WireModel], dict[str, Any]],
) -> None:
    model, body = request_of
    model.model_validate(body).model_dump_json()


@given(st.text(st.characters(exclude_categories=())))
def test_what_is_taken_can_be_written(text: str) -> None:
    try:
        assert checked_text(text) == text
    except ValueError:
        with pytest.raises(UnicodeEncodeError):
            text.encode()
    else:
        text.encode()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=())),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_is_taken_where_it_can_be_written(value: Any) -> None:
    try:
        assert checked_json(value) is value
    except ValueError:
        with pytest.raises(UnicodeEncodeError):
            json.dumps(value, ensure_ascii=False).encode()
    else:
        json.dumps(value, ensure_ascii=False).encode()
