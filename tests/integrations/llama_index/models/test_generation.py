"""`Parrot` over the real engine: a small model, which calls tools and gives objects all the same."""

import json
from typing import Literal

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel, Field

from parrot_integrations.llama_index import Parrot

pytestmark = pytest.mark.model


class Person(BaseModel):
    """A person in a text."""

    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=150)


class Order(BaseModel):
    """What somebody wants to eat."""

    dish: Literal["pizza", "salad"]
    count: int = Field(ge=1, le=9)
    guests: list[Person] = Field(min_length=1, max_length=2)


def order_food(dish: Literal["pizza", "salad"], count: int) -> str:
    """Order food."""
    return f"{count} {dish}"


order = FunctionTool.from_defaults(order_food)
ASK = PromptTemplate("{text} What does it say?")
TEXT = "Ada Lovelace, who was 36 years old, ordered a pizza."


@pytest.fixture
def llm(base_url: str) -> Parrot:
    return Parrot(base_url=base_url, temperature=0, max_tokens=128)


async def test_objects_are_valid_whatever_the_model_knows(llm: Parrot) -> None:
    for output_cls in (Person, Order):
        predicted = llm.structured_predict(output_cls, ASK, text=TEXT)
        assert isinstance(predicted, output_cls)
        assert await llm.astructured_predict(output_cls, ASK, text=TEXT) == predicted
        *_, streamed = llm.stream_structured_predict(output_cls, ASK, text=TEXT)
        assert streamed == predicted
        assert llm.as_structured_llm(output_cls).chat([ChatMessage(TEXT)]).raw.model_dump()


async def test_objects_are_valid_at_any_temperature(base_url: str) -> None:
    llm = Parrot(base_url=base_url, temperature=1.5, seed=1, max_tokens=256)
    for text in ("Who?", TEXT, "Say nothing."):
        assert isinstance(llm.structured_predict(Order, ASK, text=text), Order)


async def test_a_tool_that_must_be_called_is_called(llm: Parrot) -> None:
    response = llm.chat_with_tools([order], TEXT, tool_required=True)
    ((call),) = llm.get_tool_calls_from_response(response)
    assert call.tool_name == "order_food"
    assert call.tool_kwargs["dish"] in ("pizza", "salad")
    assert isinstance(call.tool_kwargs["count"], int)
    *_, last = llm.stream_chat_with_tools([order], TEXT, tool_required=True)
    assert llm.get_tool_calls_from_response(last)[0].tool_kwargs == call.tool_kwargs
    result = await llm.apredict_and_call([order], TEXT, tool_required=True)
    assert result.sources[0].raw_input["kwargs"] == call.tool_kwargs


def test_a_chat_goes_on_after_a_tools_result(llm: Parrot) -> None:
    asked = llm.chat_with_tools([order], TEXT, tool_choice="order_food").message
    call_id = asked.additional_kwargs["tool_calls"][0]["id"]
    result = ChatMessage("It comes.", role="tool", additional_kwargs={"tool_call_id": call_id})
    answer = llm.chat_with_tools([order], chat_history=[ChatMessage(TEXT), asked, result])
    assert answer.additional_kwargs["completion_tokens"] > 0


# LlamaIndex's workflows look at all attributes of an agent, also at those that pydantic retires.
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")
@pytest.mark.skipif(
    "initial_tool_choice" not in FunctionAgent.model_fields, reason="can't make it call a tool"
)
async def test_an_agent_comes_to_an_end(llm: Parrot) -> None:
    agent = FunctionAgent(tools=[order], llm=llm, initial_tool_choice="order_food")
    result = await agent.run(TEXT, max_iterations=4)
    assert result.tool_calls[0].tool_name == "order_food"
    assert result.response.content


def test_usage_and_logprobs_are_told(llm: Parrot) -> None:
    llm.complete(TEXT, max_tokens=2)
    told = llm.complete(TEXT, max_tokens=2, logprobs=True, top_logprobs=3)
    assert told.additional_kwargs["cached_tokens"] > 0
    assert (
        told.raw["usage"]["completion_tokens"] == told.additional_kwargs["completion_tokens"] == 2
    )
    assert [len(token) for token in told.logprobs or []] == [3, 3]
    *_, last = llm.stream_complete(TEXT, max_tokens=2, logprobs=True)
    assert [len(token) for token in last.logprobs or []] == [1, 1]


def test_metadata_and_tokens_are_the_models(llm: Parrot) -> None:
    assert llm.metadata.context_window == 8192
    assert llm.metadata.model_name == "smollm2-135m-instruct"
    text = "Hello, world! 12"
    assert llm.tokenizer(text) == llm.client.tokenize({"prompt": text})
    assert json.dumps(llm.metadata.model_dump())
