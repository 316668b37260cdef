"""Structured output of `ChatParrot`: what is asked for, and what is made of answers."""

import json
from collections.abc import Iterator
from typing import Any, TypedDict

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import LanguageModelInput
from langchain_core.runnables import Runnable, RunnableBinding
from pydantic import BaseModel, Field

from parrot_integrations.langchain import ChatParrot
from tests.doubles import ScriptedEngine
from tests.integrations.replies import Reply, replying
from tests.servers import serving
from tests.tools import written

METHODS = ["json_schema", "function_calling", "json_mode"]


class Person(BaseModel):
    """Someone in a text."""

    full_name: str = Field(description="Full name")
    age: int | None = None


class PersonDict(TypedDict):
    """Someone in a text."""

    full_name: str
    age: int


SCHEMA = {**Person.model_json_schema(), "title": "Person"}
ADA = {"full_name": "Ada", "age": 36}
ANSWERS = {
    "text": json.dumps(ADA),
    "call": written("Person", **ADA),
    "calldict": written("PersonDict", **ADA),
    "wrong": '{"age": "old"}',
    "wrongcall": written("Person", age="old"),
}


@pytest.fixture(scope="module")
def llm() -> Iterator[ChatParrot]:
    with serving(ScriptedEngine(lambda prompt: ANSWERS.get(prompt, "{}"))) as url:
        yield ChatParrot(base_url=url, temperature=0)


def bound(runnable: Runnable[LanguageModelInput, Any]) -> dict[str, Any]:
    """What the model in a structured runnable is bound to."""
    first = runnable.first
    assert isinstance(first, RunnableBinding)
    return dict(first.kwargs)


def prompt(method: str, schema: Any = Person) -> str:
    """What makes the scripted engine answer well."""
    if method != "function_calling":
        return "text"
    return "calldict" if schema is PersonDict else "call"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schema", [Person, PersonDict, SCHEMA])
async def test_every_method_and_kind_of_schema(llm: ChatParrot, schema: Any, method: Any) -> None:
    structured = llm.with_structured_output(schema, method=method)
    wanted = Person(**ADA) if schema is Person else ADA
    question = prompt(method, schema)
    assert structured.invoke(question) == wanted
    assert await structured.ainvoke(question) == wanted
    *_, last = structured.stream(question)
    assert last == wanted
    assert [c async for c in structured.astream(question)][-1] == wanted


def test_json_schema_is_the_default_and_sends_the_schema(llm: ChatParrot) -> None:
    kwargs = bound(llm.with_structured_output(Person, strict=True, seed=1))
    assert kwargs["seed"] == 1
    sent = kwargs["response_format"]["json_schema"]
    assert (sent["name"], sent["strict"]) == ("Person", True)
    assert sent["schema"]["properties"].keys() == {"full_name", "age"}
    told = kwargs["ls_structured_output_format"]
    assert told == {"kwargs": {"method": "json_schema", "strict": True}, "schema": Person}
    assert "ls_structured_output_format" not in llm.parameters(**kwargs)


def test_function_calling_forces_one_call(llm: ChatParrot) -> None:
    kwargs = bound(llm.with_structured_output(PersonDict, method="function_calling"))
    assert kwargs["tool_choice"] == {"type": "function", "function": {"name": "PersonDict"}}
    assert kwargs["parallel_tool_calls"] is False


def test_json_mode_goes_without_a_schema(llm: ChatParrot) -> None:
    structured = llm.with_structured_output(method="json_mode")
    assert bound(structured)["response_format"] == {"type": "json_object"}
    assert structured.invoke("text") == ADA
    with_schema = llm.with_structured_output(Person, method="json_mode")
    assert bound(with_schema)["response_format"]["type"] == "json_schema"


@pytest.mark.parametrize("method", METHODS)
def test_include_raw(llm: ChatParrot, method: Any) -> None:
    structured = llm.with_structured_output(Person, method=method, include_raw=True)
    good = structured.invoke(prompt(method))
    assert (good["parsed"], good["parsing_error"]) == (Person(**ADA), None)
    assert good["raw"].usage_metadata["output_tokens"] > 0
    bad = structured.invoke("wrongcall" if method == "function_calling" else "wrong")
    assert bad["parsed"] is None
    assert "full_name" in str(bad["parsing_error"])
    assert bad["raw"].response_metadata["model_provider"] == "parrot"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "xml"}, "method is 'xml'"),
        ({"method": "json_mode", "strict": True}, "strict has no meaning"),
        ({"schema": None}, "'json_schema' needs a schema"),
        ({"schema": None, "method": "function_calling"}, "'function_calling' needs a schema"),
    ],
)
def test_what_makes_no_sense_is_refused(
    llm: ChatParrot, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        llm.with_structured_output(**{"schema": Person, **arguments})


def answering(content: str | None, calls: list[dict[str, Any]], reason: str) -> Reply:
    message = {"role": "assistant", "content": content, "tool_calls": calls}
    choice = {"message": message, "finish_reason": reason}
    return Reply(body=json.dumps({"model": "m", "choices": [choice]}).encode())


def call(arguments: str) -> list[dict[str, Any]]:
    return [{"id": "1", "type": "function", "function": {"name": "Person", "arguments": arguments}}]


CUT = '{"full_name": "Ad'
WHOLE = '{"full_name": "Ada"}'


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schema", [Person, SCHEMA])
def test_an_answer_that_was_cut_off_is_no_result(schema: Any, method: Any) -> None:
    calls = method == "function_calling"
    replies = [
        answering(None, call(text), "length") if calls else answering(text, [], "length")
        for text in (CUT, WHOLE)
    ]
    with replying(*replies) as server:
        structured = ChatParrot(base_url=server.url).with_structured_output(schema, method=method)
        with pytest.raises(OutputParserException, match="raise max_tokens"):
            structured.invoke("x")
        assert structured.invoke("x") in ({"full_name": "Ada"}, Person(full_name="Ada"))


@pytest.mark.model
@pytest.mark.parametrize("method", METHODS)
def test_the_real_model_writes_what_the_schema_says(base_url: str, method: Any) -> None:
    """At a high temperature, so that nothing but the constraint keeps it to the schema."""

    class Weather(BaseModel):
        """The weather in a city."""

        city: str = Field(max_length=12)
        sky: str = Field(pattern="^(sunny|cloudy|rainy)$")
        degrees: int = Field(ge=-20, le=40)

    llm = ChatParrot(base_url=base_url, temperature=1.5, seed=7, max_tokens=96)
    structured = llm.with_structured_output(Weather, method=method)
    for weather in structured.batch(["What is the weather in Lima?", "Tell me a story."]):
        assert isinstance(weather, Weather)
