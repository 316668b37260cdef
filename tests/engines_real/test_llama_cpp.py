"""llama.cpp's server behind an `UpstreamEndpoint`, for real: four slots, weights in 4 bits."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import httpx
import pytest
import pytest_asyncio

from parrot_backend.endpoints.base import Job
from parrot_backend.endpoints.upstream.endpoint import UpstreamEndpoint
from parrot_backend.engines.base import Delta
from parrot_backend.wire.errors import ContextLengthError
from parrot_backend.wire.messages import ChatMessage
from parrot_backend.wire.protocol import ChatRequest
from tests.engines_real.starting import NO_LLAMA_CPP, llama_cpp, llama_cpp_python
from tests.programs import request

pytestmark = [
    pytest.mark.llama_cpp,
    pytest.mark.skipif(llama_cpp_python() is None, reason=NO_LLAMA_CPP),
]

SLOTS, CONTEXT = 4, 1024
LONG = "The lighthouse stands on a rock, and its keeper counts the ships that pass. " * 24
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "inhabitants": {"type": "integer"}},
    "required": ["city", "inhabitants"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with llama_cpp(SLOTS, CONTEXT, "--threads", "1") as running:
        yield running.url


@pytest_asyncio.fixture
async def endpoint(url: str) -> AsyncIterator[UpstreamEndpoint]:
    endpoint = UpstreamEndpoint(url)
    await endpoint.start()
    yield endpoint
    await endpoint.aclose()


async def answered(endpoint: UpstreamEndpoint, request: ChatRequest, **job: object) -> list[Delta]:
    async with aclosing(endpoint.generate(Job(request, **job))) as deltas:
        return [delta async for delta in deltas]


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def about(question: str) -> ChatRequest:
    """A long beginning, and something of its own."""
    messages = [
        ChatMessage(role="system", content=LONG),
        ChatMessage(role="user", content=question),
    ]
    return ChatRequest(messages=messages, max_tokens=8, temperature=0)


async def test_it_is_recognized_with_its_slots(endpoint: UpstreamEndpoint) -> None:
    assert endpoint.state == "ready"
    assert "llama.cpp" in endpoint.card.engine
    assert (endpoint.card.slots, endpoint.card.sharing) == (SLOTS, "slot")
    assert endpoint.card.model.context_length == CONTEXT


async def test_it_streams_what_it_answers_at_once(endpoint: UpstreamEndpoint, url: str) -> None:
    asked = request("What is the capital of France?", max_tokens=16, temperature=0)
    deltas = await answered(endpoint, asked)
    body = asked.model_dump(exclude_none=True, exclude={"stream"})
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        direct = (await client.post("/v1/chat/completions", json=body)).json()
    assert text_of(deltas) == direct["choices"][0]["message"]["content"]
    assert deltas[-1].finish_reason == direct["choices"][0]["finish_reason"]
    assert deltas[-1].prompt_tokens == direct["usage"]["prompt_tokens"]
    told = sum(len(delta.tokens) + delta.untold_tokens for delta in deltas)
    assert told == direct["usage"]["completion_tokens"]


async def test_a_prefix_is_computed_once_on_its_slot(endpoint: UpstreamEndpoint) -> None:
    """Others come between, which would take the slot that was not used for the longest time."""
    first = await answered(endpoint, about("Who counts the ships?"), tenant="one")
    for number in range(SLOTS - 1):
        await answered(endpoint, request(f"Say {number}.", max_tokens=2), tenant="one")
    second = await answered(endpoint, about("Where does it stand?"), tenant="one")
    shared = second[-1].cached_tokens
    assert shared > 0.8 * second[-1].prompt_tokens, (first[-1], second[-1])


async def test_nothing_is_shared_between_tenants(endpoint: UpstreamEndpoint) -> None:
    await answered(endpoint, about("Who counts the ships?"), tenant="one")
    deltas = await answered(endpoint, about("Who counts the ships?"), tenant="two")
    assert deltas[-1].cached_tokens == 0


async def test_more_than_its_slots_at_once_are_answered_each(endpoint: UpstreamEndpoint) -> None:
    asked = [
        request(f"Write the number {number}.", max_tokens=4, temperature=0)
        for number in range(2 * SLOTS)
    ]
    answers = await asyncio.gather(*(answered(endpoint, each) for each in asked))
    assert all(answer[-1].finish_reason is not None for answer in answers)


async def test_what_is_closed_ends_there(endpoint: UpstreamEndpoint, url: str) -> None:
    asked = request("Count to a thousand.", max_tokens=900, logit_bias={"2": -100})
    async with aclosing(endpoint.generate(Job(asked))) as deltas:
        async for _ in deltas:
            break
    async with httpx.AsyncClient(base_url=url) as client:
        for _ in range(100):
            slots = (await client.get("/slots")).json()
            if not any(slot["is_processing"] for slot in slots):
                return
            await asyncio.sleep(0.05)
    pytest.fail(f"it goes on: {slots}")


async def test_json_follows_its_schema(endpoint: UpstreamEndpoint) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}}
    asked = request("Describe Rome.", max_tokens=64, temperature=0, response_format=form)
    told = json.loads(text_of(await answered(endpoint, asked)))
    assert isinstance(told["inhabitants"], int)


async def test_a_prompt_that_is_too_long_is_told_as_that(endpoint: UpstreamEndpoint) -> None:
    with pytest.raises(ContextLengthError):
        await answered(endpoint, request("word " * (2 * CONTEXT)))
