"""Calls tell of themselves as the framework's own do: events, spans, callbacks; never credentials."""

from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import (
    CallbackManager,
    CBEventType,
    LlamaDebugHandler,
    TokenCountingHandler,
)
from llama_index.core.callbacks.schema import EventPayload
from llama_index.core.prompts import PromptTemplate
from pydantic import BaseModel

from parrot_integrations.client.errors import InvalidRequestError
from parrot_integrations.llama_index import Parrot
from tests.integrations.llama_index.models.scripted import get_weather, scripted
from tests.integrations.llama_index.models.watching import Events, watching
from tests.integrations.replies import failure, replying

CHAT = [ChatMessage("abc")]
SAY = PromptTemplate("{word}")


class Person(BaseModel):
    """Someone in a text."""

    full_name: str
    age: int


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with scripted() as (url, _):
        yield url


@pytest.fixture
def llm(url: str) -> Parrot:
    return Parrot(base_url=url)


WHOLE_CHAT = ["LLMChatStartEvent", "LLMChatEndEvent"]
STREAMED_CHAT = ["LLMChatStartEvent", "LLMChatInProgressEvent", "LLMChatEndEvent"]
WHOLE_COMPLETION = [name.replace("Chat", "Completion") for name in WHOLE_CHAT]
STREAMED_COMPLETION = [name.replace("Chat", "Completion") for name in STREAMED_CHAT]


async def test_each_endpoint_has_its_events_once(llm: Parrot) -> None:
    for endpoint, given, kinds in (
        ("chat", CHAT, WHOLE_CHAT),
        ("stream_chat", CHAT, STREAMED_CHAT),
        ("complete", "abc", WHOLE_COMPLETION),
        ("stream_complete", "abc", STREAMED_COMPLETION),
    ):
        with watching() as (events, spans):
            answer: Any = getattr(llm, endpoint)(given)
            if endpoint.startswith("stream"):
                list(answer)
        with watching() as (aevents, aspans):
            answer = await getattr(llm, f"a{endpoint}")(given)
            if endpoint.startswith("stream"):
                assert [r async for r in answer]
        assert events.kinds() == aevents.kinds() == kinds
        assert (spans.seen, aspans.seen) == ([endpoint], [f"a{endpoint}"])
        (*_, end) = events.seen
        assert end.response.additional_kwargs["total_tokens"] == 6


def test_predictions_have_those_of_their_chats(llm: Parrot) -> None:
    with watching() as (events, spans):
        llm.predict(SAY, word="abc")
    assert events.kinds() == ["LLMPredictStartEvent", *WHOLE_CHAT, "LLMPredictEndEvent"]
    assert spans.seen == ["predict", "chat"]


def in_short(events: Events) -> list[str]:
    """Their kinds, without how often pieces of an answer came."""
    kinds = events.kinds()
    return [*kinds[:4], *sorted(set(kinds)), *kinds[-2:]]


async def test_objects_have_the_events_of_the_frameworks_own(url: str) -> None:
    seen = []
    for mode, word in (("default", "person"), ("function", "personcall")):
        llm = Parrot(base_url=url, pydantic_program_mode=mode)
        for method in ("structured_predict", "stream_structured_predict"):
            with watching() as (events, spans):
                answer: Any = getattr(llm, method)(Person, SAY, word=word)
                if method.startswith("stream"):
                    list(answer)
            with watching() as (aevents, _):
                answer = await getattr(llm, f"a{method}")(Person, SAY, word=word)
                if method.startswith("stream"):
                    assert [o async for o in answer]
            assert spans.seen.count(method) == 1
            seen.append(in_short(events) + in_short(aevents))
            assert events.seen[0].template is SAY
            assert events.seen[-1].output == Person(full_name="Ada", age=36)
    assert seen[:2] == seen[2:]
    assert "LLMStructuredPredictInProgressEvent" in seen[1]


def test_what_is_told_has_no_credentials(url: str) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    llm = Parrot(
        base_url=url,
        api_key="hunter2",
        default_headers={"x-token": "hunter3"},
        callback_manager=CallbackManager([debug]),
    )
    with watching() as (events, _):
        llm.complete("abc")
        list(llm.stream_chat(CHAT))
    assert len(debug.get_event_pairs(CBEventType.LLM)) == 2
    told = repr([event.model_dump() for event in events.seen])
    told += repr([event.payload for event in debug.get_events()])
    assert "hunter" not in told


def test_a_failed_call_ends_its_event() -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    with replying(failure(400)) as server:
        llm = Parrot(base_url=server.url, callback_manager=CallbackManager([debug]))
        with pytest.raises(InvalidRequestError):
            llm.complete("abc")
    assert len(debug.get_event_pairs(CBEventType.LLM)) == 1


def test_callbacks_have_the_arguments_of_the_call(url: str) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    llm = Parrot(base_url=url, callback_manager=CallbackManager([debug]))
    llm.chat_with_tools([get_weather], "call", seed=3)
    ((start, end),) = debug.get_event_pairs(CBEventType.LLM)
    given = start.payload[EventPayload.ADDITIONAL_KWARGS]
    assert (given["seed"], given["tool_choice"]) == (3, "auto")
    assert end.payload[EventPayload.RESPONSE].message.additional_kwargs["tool_calls"]


def test_token_counts_are_the_servers(url: str) -> None:
    counter = TokenCountingHandler(tokenizer=str.split)
    llm = Parrot(base_url=url, callback_manager=CallbackManager([counter]))
    llm.chat(CHAT)
    list(llm.stream_complete("abcd"))
    assert counter.prompt_llm_token_count == 3 + 4
    assert counter.completion_llm_token_count == 3 + 4


@pytest.mark.skipif("rate_limiter" not in BaseLLM.model_fields, reason="has no rate limiters")
async def test_a_rate_limiter_is_asked_before_each_call(url: str) -> None:
    class Limiter:
        asked = 0

        def acquire(self) -> None:
            self.asked += 1

        async def async_acquire(self) -> None:
            self.asked += 1

    limiter = Limiter()
    llm = Parrot(base_url=url, rate_limiter=limiter)
    llm.chat(CHAT)
    await llm.acomplete("abc")
    list(llm.stream_chat(CHAT))
    llm.structured_predict(Person, SAY, word="person")
    assert limiter.asked == 4
