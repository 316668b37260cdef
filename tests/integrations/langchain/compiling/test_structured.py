"""JSON answers: texts in them are planned with at once, what else is in them when it is there."""

import json
from collections.abc import Callable, Iterator
from operator import attrgetter, itemgetter
from typing import Any, TypedDict

import pytest
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnablePassthrough
from pydantic import BaseModel, Field, field_validator

from parrot_integrations.langchain import ChatParrot, compile, join_texts
from tests.doubles import ScriptedEngine
from tests.integrations.langchain.compiling.chains import ask
from tests.integrations.langchain.compiling.claims import SINGLE, claims
from tests.servers import serving


def answer(prompt: str) -> str:
    if not prompt.startswith("JSON"):
        return prompt[::-1][:20]
    birds = [{"name": "wren"}, {"name": "owl"}]
    return json.dumps({"name": f" {prompt[4:]} ", "count": 3, "birds": birds, "in": {"a": "deep"}})


@pytest.fixture(scope="module")
def llm() -> Iterator[ChatParrot]:
    with serving(ScriptedEngine(answer)) as url:
        yield ChatParrot(base_url=url, temperature=0, max_retries=0)


class Bird(BaseModel):
    name: str = Field(max_length=40)
    count: int


class Renamed(BaseModel):
    title: str = Field(alias="name")


class Stripped(BaseModel):
    name: str

    @field_validator("name")
    @classmethod
    def strip(cls, name: str) -> str:
        return name.strip()


class Told(TypedDict):
    """A bird."""

    name: str
    count: int


ASKED = ChatPromptTemplate.from_template("JSON {x}")
Chain = Callable[[ChatParrot], Runnable[Any, Any]]


def loose(llm: ChatParrot) -> Runnable[Any, Any]:
    return ASKED | llm | JsonOutputParser()


def told(llm: ChatParrot) -> Runnable[Any, Any]:
    return ASKED | llm.with_structured_output(Told)


def made(kind: type[BaseModel]) -> Chain:
    return lambda llm: ASKED | llm.with_structured_output(kind)


AHEAD: dict[str, tuple[Chain, int]] = {
    "a key": (lambda llm: loose(llm) | itemgetter("name") | ask("Draw {y}", llm), 2),
    "a picked key": (lambda llm: loose(llm).pick("name") | ask("Draw {y}", llm), 2),
    "a nested key": (
        lambda llm: loose(llm).pick("in") | itemgetter("a") | ask("Draw {y}", llm),
        2,
    ),
    "an element": (
        lambda llm: (
            (loose(llm) | itemgetter("birds") | itemgetter(1) | itemgetter("name"))
            | ask("Draw {y}", llm)
        ),
        2,
    ),
    "a template's field": (lambda llm: loose(llm) | ask("Draw {name}", llm), 2),
    "a field twice": (lambda llm: told(llm) | ask("Draw {name}, {name}", llm), 2),
    "beside the input": (
        lambda llm: (
            {"bird": loose(llm) | itemgetter("name"), "x": RunnablePassthrough()}
            | ask("Draw {bird} for {x}", llm)
        ),
        2,
    ),
    "a dict by its schema": (
        lambda llm: told(llm) | ask("Draw {name}", llm) | ask("Frame {y}", llm),
        3,
    ),
    "an attribute": (lambda llm: made(Bird)(llm) | attrgetter("name") | ask("Draw {y}", llm), 2),
    "an attribute by its alias": (
        lambda llm: made(Renamed)(llm) | attrgetter("title") | ask("Draw {y}", llm),
        2,
    ),
    "LangChain's parser of a class": (
        lambda llm: (
            ASKED
            | llm
            | PydanticOutputParser(pydantic_object=Bird)
            | attrgetter("name")
            | ask("Draw {y}", llm)
        ),
        2,
    ),
    "a parser that knows the class": (
        lambda llm: ASKED | llm | JsonOutputParser(pydantic_object=Bird) | ask("Draw {name}", llm),
        2,
    ),
}

LATER: dict[str, tuple[Chain, int]] = {
    "a number by its schema": (lambda llm: told(llm) | ask("Draw {count} {name}", llm), 2),
    "an attribute that is no text": (
        lambda llm: made(Bird)(llm) | attrgetter("count") | ask("Draw {y}", llm),
        2,
    ),
    "an attribute that is validated": (
        lambda llm: made(Stripped)(llm) | attrgetter("name") | ask("Draw {y}", llm),
        2,
    ),
    "a list that is mapped": (
        lambda llm: (
            loose(llm)
            | itemgetter("birds")
            | (itemgetter("name") | ask("Draw {y}", llm)).map()
            | join_texts()
        ),
        3,
    ),
    "a function": (
        lambda llm: loose(llm) | (lambda made: str(len(made))) | ask("Draw {y}", llm),
        2,
    ),
    "all of it": (lambda llm: {"all": loose(llm)} | ask("Draw {all}", llm), 2),
    "a format": (lambda llm: loose(llm) | ask("Draw {name:>30}", llm), 2),
}
"""Planned when the answer is parsed."""


@pytest.mark.parametrize("mode", ["invoke", "ainvoke", "batch_as_completed"])
@pytest.mark.parametrize("name", AHEAD)
def test_texts_are_planned_with_before_the_answer_is_there(
    name: str, mode: str, llm: ChatParrot
) -> None:
    build, calls = AHEAD[name]
    times = 1 if mode in SINGLE else 2
    assert claims(lambda: build(llm), {"x": "bird"}, mode) == (times * calls,) * 3
    assert "parses an answer" not in compile(build(llm)).explain({"x": "bird"})


@pytest.mark.parametrize("mode", ["stream", "astream"])
@pytest.mark.parametrize("name", ["a template's field", "a dict by its schema", "beside the input"])
def test_streams_of_dicts_are_planned_too(name: str, mode: str, llm: ChatParrot) -> None:
    """But for what LangChain adds up of the parts of a stream that are taken from dicts in parts."""
    build, calls = AHEAD[name]
    assert claims(lambda: build(llm), {"x": "bird"}, mode) == (calls, calls, calls)
    picked = claims(lambda: AHEAD["a picked key"][0](llm), {"x": "bird"}, mode)
    assert picked == (2, 2, 1)


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
@pytest.mark.parametrize("name", LATER)
def test_what_is_no_text_is_planned_with_when_it_is_there(
    name: str, mode: str, llm: ChatParrot
) -> None:
    build, calls = LATER[name]
    assert claims(lambda: build(llm), {"x": "bird"}, mode) == (1, calls, calls)
    assert "parses an answer" in compile(build(llm)).explain({"x": "bird"})


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
def test_a_wrong_guess_is_planned_anew(mode: str, llm: ChatParrot) -> None:
    """Nothing says that it is a number; when the answer is parsed, that is seen."""
    chain = loose(llm) | itemgetter("count") | ask("Draw {y}", llm) | ask("Frame {z}", llm)
    assert claims(lambda: chain, {"x": "bird"}, mode) == (3, 3, 3)


def test_an_answer_that_is_no_json_fails_as_it_does(llm: ChatParrot) -> None:
    chain = ask("No JSON {x}", llm) | JsonOutputParser() | itemgetter("a") | ask("Draw {y}", llm)
    assert claims(lambda: chain, {"x": "bird"}).asked == 1
