"""A server of ours as an upstream: real HTTP, and what comes is what the engine gives itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from parrot_backend.endpoints.base import Endpoint, Job
from parrot_backend.endpoints.local import LocalEndpoint
from parrot_backend.endpoints.tool_calls import assembled
from parrot_backend.endpoints.upstream.address import Secret
from parrot_backend.endpoints.upstream.endpoint import UpstreamEndpoint
from parrot_backend.engines.torch_engine import TorchEngine
from parrot_backend.wire.errors import ContextLengthError, EngineError, InvalidRequestError
from parrot_backend.wire.text_protocol import PromptRequest
from tests.doubles import ScriptedEngine
from tests.endpoints.process.children import answer_of, deltas_of, eventually
from tests.endpoints.upstream.servers import job
from tests.servers import serving

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
        },
    },
}


@asynccontextmanager
async def started(url: str, **options: Any) -> AsyncIterator[UpstreamEndpoint]:
    endpoint = UpstreamEndpoint(url, measured={}, **options)
    try:
        await endpoint.start()
        yield endpoint
    finally:
        await endpoint.aclose()


async def outcome(endpoint: Endpoint, asked: Job) -> dict[str, Any]:
    """What an answer is, whatever it was cut into."""
    deltas = await deltas_of(endpoint, asked)
    calls = assembled(piece for delta in deltas for piece in delta.tool_calls)
    logprobs = [token for delta in deltas for token in delta.logprobs]
    return {
        "text": "".join(delta.text for delta in deltas),
        "calls": [(call.function.name, call.function.arguments) for call in calls],
        "reason": deltas[-1].finish_reason,
        "generated": sum(len(d.tokens) + d.untold_tokens for d in deltas),
        "prompt": deltas[-1].prompt_tokens,
        "logprobs": [(t.chosen.content, round(t.chosen.logprob, 3), len(t.top)) for t in logprobs],
    }


async def test_it_is_recognized_and_answers_as_its_engine_does() -> None:
    engine = ScriptedEngine()
    with serving(engine) as url:
        async with started(url) as endpoint:
            assert endpoint.card.engine.startswith("Parrot ")
            assert endpoint.card.model.name == "scripted"
            assert endpoint.card.model.context_length == 1000
            assert endpoint.card.sharing == "batch"
            local = LocalEndpoint(ScriptedEngine())
            for asked in (
                job("hallo"),
                job("zu Fuß e\u0301 \U0010ffff"),
                job("with numbers", logprobs=True, top_logprobs=3),
                job("SEED", seed=-(2**63)),
                Job(PromptRequest(prompt=[120, 121, 128512], logprobs=True, top_logprobs=2)),
                Job(PromptRequest(prompt="a text")),
            ):
                assert await outcome(endpoint, asked) == await outcome(local, asked)
                assert await endpoint.tokenize(asked.request) == await local.tokenize(asked.request)
            with pytest.raises(ContextLengthError, match="do not fit"):
                await deltas_of(endpoint, job("FAIL"))


async def test_a_key_is_needed_where_one_is() -> None:
    with serving(ScriptedEngine(), api_key="sk-one") as url:
        endpoint = UpstreamEndpoint(url)
        with pytest.raises(EngineError, match="wants an API key"):
            await endpoint.start()
        await endpoint.aclose()
        async with started(url, key=Secret("sk-one")) as endpoint:
            assert await answer_of(endpoint, "abc") == "cba"


async def test_an_answer_that_is_closed_ends_there_too() -> None:
    engine = ScriptedEngine()
    engine.hold("hold")
    with serving(engine) as url:
        async with started(url) as endpoint:
            async with aclosing(endpoint.generate(job("hold"))) as deltas:
                await anext(deltas)
                assert engine.running == 1
            await eventually(lambda: engine.running == 0)


async def test_many_at_once_keep_apart() -> None:
    with serving(ScriptedEngine()) as url:
        async with started(url, slots=100) as endpoint:
            texts = [f"text {i}" for i in range(100)]
            answers = await asyncio.gather(*(answer_of(endpoint, text) for text in texts))
            assert answers == [text[::-1] for text in texts]


@pytest.mark.model
async def test_the_real_model_answers_as_in_its_own_process(
    base_url: str, engine: TorchEngine
) -> None:
    local = LocalEndpoint(engine)
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    async with started(base_url) as endpoint:
        assert endpoint.card.model.generation_config == engine.model.generation_config
        assert endpoint.card.kv_tokens
        for asked in (
            job("What is the capital of France?", temperature=0, max_tokens=12),
            job("Name a number as JSON.", temperature=0, max_tokens=20, response_format=form),
            job("Yes or no?", temperature=0, structured_outputs={"choice": ["yes", "no"]}),
            job("Weather in Paris?", temperature=0, tools=[WEATHER], tool_choice="required"),
            job("Hello", temperature=1, seed=5, max_tokens=8, logprobs=True, top_logprobs=2),
            job("Count to ten.", temperature=0, max_tokens=30, stop=["5"]),
            Job(PromptRequest(prompt="The capital of", temperature=0.0, max_tokens=4)),
        ):
            assert await outcome(endpoint, asked) == await outcome(local, asked)
        with pytest.raises(ContextLengthError):
            await deltas_of(endpoint, job("word " * 9000))
        with pytest.raises(InvalidRequestError) as told:
            await deltas_of(endpoint, job("Hello", logit_bias={2**30: 1.0}))
        assert told.value.param == "logit_bias"
