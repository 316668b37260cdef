"""Objects that `Parrot` predicts: what is asked for, and what is made of answers."""

import json
from collections.abc import Iterator
from itertools import pairwise

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.program import FunctionCallingProgram, LLMTextCompletionProgram
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel, Field, field_validator

from parrot_integrations.llama_index import Parrot
from tests.doubles import ScriptedEngine
from tests.integrations.llama_index.models.scripted import ADA, TREES, scripted
from tests.integrations.replies import Reply, replying
from tests.servers import serving


class Person(BaseModel):
    """Someone in a text."""

    full_name: str = Field(description="Full name")
    age: int


class Tree(BaseModel):
    """A tree."""

    name: str


class Trees(BaseModel):
    """Some trees."""

    trees: list[Tree]


SAY = PromptTemplate("{word}")


@pytest.fixture(scope="module")
def llm() -> Iterator[Parrot]:
    with scripted() as (url, _):
        yield Parrot(base_url=url, temperature=0)


def test_what_is_sent(llm: Parrot) -> None:
    llm = llm.model_copy(update={"system_prompt": "be good"})
    given = {"seed": 1, "tool_choice": "x", "tool_required": True}
    body = llm._structured_body(Person, SAY, given, {"word": "who"})
    assert body["messages"] == [
        {"role": "system", "content": "be good"},
        {"role": "user", "content": "who"},
    ]
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "Person", "schema": Person.model_json_schema()},
    }
    assert (body["seed"], body["max_tokens"]) == (1, 256)
    assert "tool_choice" not in body
    assert given == {"seed": 1, "tool_choice": "x", "tool_required": True}


def test_a_prediction_sends_the_body_that_can_be_planned() -> None:
    message = {"role": "assistant", "content": json.dumps(ADA)}
    reply = {"model": "m", "choices": [{"message": message, "finish_reason": "stop"}]}
    with replying(Reply(body=json.dumps(reply).encode())) as server:
        llm = Parrot(base_url=server.url, model="m", context_window=100)
        llm.structured_predict(Person, SAY, {"seed": 1}, word="who")
        (_, _, _, sent) = server.requests[0]
    assert sent == llm._structured_body(Person, SAY, {"seed": 1}, {"word": "who"})


async def test_objects(llm: Parrot) -> None:
    predicted = (
        llm.structured_predict(Person, SAY, word="person"),
        await llm.astructured_predict(Person, SAY, word="person"),
        llm.structured_predict(Person, ChatPromptTemplate([ChatMessage("per{word}")]), word="son"),
    )
    assert predicted == (Person(**ADA),) * 3
    assert llm.structured_predict(Trees, SAY, word="trees") == Trees(**TREES)


async def test_streamed_objects_grow(llm: Parrot) -> None:
    streams = (
        list(llm.stream_structured_predict(Trees, SAY, word="trees")),
        [o async for o in await llm.astream_structured_predict(Trees, SAY, word="trees")],
    )
    for objects in streams:
        assert objects[-1] == Trees(**TREES)
        names = [[tree.name for tree in o.trees] for o in objects if isinstance(o, Trees)]
        grown = [names[0], *(b for a, b in pairwise(names) if a != b)]
        assert grown == sorted(grown)
        assert ["oak", "e"] in grown


# LlamaIndex's own.
@pytest.mark.filterwarnings("ignore:The `json` method is deprecated")
async def test_a_structured_llm(llm: Parrot) -> None:
    structured = llm.as_structured_llm(Person)
    chat = [ChatMessage("person")]
    assert structured.chat(chat).raw == Person(**ADA)
    assert (await structured.achat(chat)).raw == Person(**ADA)
    assert structured.complete("person").raw == Person(**ADA)
    assert json.loads((await structured.acomplete("person")).text) == ADA
    assert list(structured.stream_chat(chat))[-1].raw == Person(**ADA)
    assert [r async for r in await structured.astream_chat(chat)][-1].raw == Person(**ADA)
    assert structured.metadata == llm.metadata


def test_an_answer_that_was_cut_off_is_an_error_that_says_so() -> None:
    message = {"role": "assistant", "content": '{"full_name": "Ad'}
    reply = {"model": "m", "choices": [{"message": message, "finish_reason": "length"}]}
    with replying(Reply(body=json.dumps(reply).encode())) as server:
        llm = Parrot(base_url=server.url, model="m", context_window=100)
        with pytest.raises(ValueError, match=r"Person: .*cut off.*raise max_tokens"):
            llm.structured_predict(Person, SAY, word="who")


def test_what_no_schema_says_is_the_classes_to_refuse(llm: Parrot) -> None:
    class Old(Person):
        @field_validator("age")
        @classmethod
        def _is_old(cls, age: int) -> int:
            if age < 90:
                raise ValueError("too young")
            return age

    with pytest.raises(ValueError, match="too young"):
        llm.structured_predict(Old, SAY, word="person")


async def test_the_mode_of_functions_is_the_frameworks_own(llm: Parrot) -> None:
    llm = llm.model_copy(update={"pydantic_program_mode": PydanticProgramMode.FUNCTION})
    say = {"word": "personcall"}
    assert llm.structured_predict(Person, SAY, **say) == Person(**ADA)
    assert await llm.astructured_predict(Person, SAY, **say) == Person(**ADA)
    assert list(llm.stream_structured_predict(Person, SAY, **say))[-1] == Person(**ADA)
    stream = await llm.astream_structured_predict(Person, SAY, **say)
    assert [o async for o in stream][-1] == Person(**ADA)


def test_the_mode_of_texts_is_the_frameworks_own() -> None:
    engine = ScriptedEngine(lambda prompt: json.dumps(ADA) if "schema" in prompt else "{}")
    with serving(engine) as url:
        llm = Parrot(base_url=url, pydantic_program_mode="llm")
        assert llm.structured_predict(Person, PromptTemplate("{word}"), word="x") == Person(**ADA)


def test_the_frameworks_programs_take_it(llm: Parrot) -> None:
    program = FunctionCallingProgram.from_defaults(Person, prompt_template_str="{word}", llm=llm)
    assert program(word="personcall") == Person(**ADA)
    text = LLMTextCompletionProgram.from_defaults(
        output_cls=Person, prompt_template_str="{word}", llm=llm
    )
    assert text.output_cls is Person


def test_a_class_as_response_format(llm: Parrot) -> None:
    body = llm._body([ChatMessage("x")], response_format=Person)
    assert body["response_format"]["json_schema"]["name"] == "Person"
    assert llm.complete("person", response_format=Person).text == json.dumps(ADA)
