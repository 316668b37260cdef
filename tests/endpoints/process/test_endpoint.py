"""An engine in another process is as it is in this one."""

import asyncio
from contextlib import aclosing

import pytest

from parrot_backend.endpoints.base import Endpoint, Job
from parrot_backend.endpoints.local import LocalEndpoint
from parrot_backend.endpoints.process import endpoint as endpoint_module
from parrot_backend.endpoints.process.endpoint import ProcessEndpoint
from parrot_backend.engines.stages import Stage
from parrot_backend.wire.errors import (
    ContextLengthError,
    EndpointLostError,
    EngineError,
    InvalidRequestError,
    ParrotError,
    UnavailableError,
)
from parrot_backend.wire.protocol import ChatRequest
from parrot_backend.wire.text_protocol import PromptRequest
from tests.doubles import ScriptedEngine
from tests.endpoints.process.children import (
    answer_of,
    deltas_of,
    eventually,
    job,
    running,
    states_of,
)
from tests.endpoints.process.engines import recipe

JOBS = [
    job("hallo"),
    job("SEED", seed=-(2**63)),
    job("with numbers", logprobs=True, top_logprobs=3),
    job("\0 \ud7ff \U0001f99c zu Fuß e\u0301 \U0010ffff"),
    Job(PromptRequest(prompt="a text"), priority=-3, tenant="one", draft=(104, 105)),
    Job(PromptRequest(prompt=[97, 98, 128512])),
]


async def outcome(endpoint: Endpoint, asked: Job) -> object:
    """What it gives, or how it fails."""
    try:
        return await deltas_of(endpoint, asked)
    except ParrotError as error:
        return type(error), error.message, error.param, error.code


async def test_deltas_tokens_and_errors_are_those_of_the_engine() -> None:
    local = LocalEndpoint(ScriptedEngine())
    async with running() as endpoint:
        assert endpoint.card == local.card
        for asked in [*JOBS, job("FAIL")]:
            assert await outcome(endpoint, asked) == await outcome(local, asked)
            assert await endpoint.tokenize(asked.request) == await local.tokenize(asked.request)


async def test_errors_keep_their_class_and_stay_with_their_job() -> None:
    async with running() as endpoint:
        told = await asyncio.gather(
            *(deltas_of(endpoint, job(content)) for content in ("FAIL", "BREAK", "END", "good")),
            return_exceptions=True,
        )
        assert isinstance(told[0], ContextLengthError)
        assert isinstance(told[1], EngineError)
        assert "ZeroDivisionError('by nothing')" in told[1].message
        assert isinstance(told[2], EngineError)
        assert isinstance(told[3], list)


async def test_what_is_no_text_is_refused_and_nothing_else_suffers() -> None:
    request = ChatRequest.model_construct(messages=[], stop=["\ud800"])
    async with running() as endpoint:
        with pytest.raises(InvalidRequestError, match="Unicode"):
            await deltas_of(endpoint, Job(request))
        with pytest.raises(InvalidRequestError, match="Unicode"):
            await endpoint.tokenize(request)
        assert await answer_of(endpoint, "good") == "doog"


async def test_closing_a_generator_frees_what_it_held_in_the_child() -> None:
    async with running() as endpoint:
        async with aclosing(endpoint.generate(job("HOLD"))) as deltas:
            assert (await anext(deltas)).text == "D"
            await eventually(lambda: endpoint.stats().running == 1)
        await eventually(lambda: endpoint.stats().running == 0)


async def test_a_thousand_jobs_at_once() -> None:
    async with running() as endpoint:
        answers = await asyncio.gather(*(answer_of(endpoint, f"<{n}>") for n in range(1000)))
        assert answers == [f"<{n}>"[::-1] for n in range(1000)]
        await eventually(lambda: endpoint.stats().running == 0)


async def test_hints_reach_the_child_until_they_are_called_back() -> None:
    async with running() as endpoint:
        forget = endpoint.expect([job("abc").request, job("abd").request], "one")
        await eventually(lambda: endpoint.stats().prefix_tree_nodes == 1)
        forget()
        forget()
        await eventually(lambda: endpoint.stats().prefix_tree_nodes == 0)


async def test_a_hint_that_cannot_be_sent_is_none() -> None:
    async with running() as endpoint:
        endpoint.expect([ChatRequest.model_construct(messages=[], stop=["\ud800"])], "one")()
        assert await answer_of(endpoint, "good") == "doog"


async def test_hints_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "MAX_HINT_BYTES", 300)
    async with running() as endpoint:
        forget = endpoint.expect([job("abc" * 50).request], "one")
        endpoint.expect([job("xyz" * 50).request], "one")()
        await eventually(lambda: endpoint.stats().prefix_tree_nodes == 1)
        forget()
        await eventually(lambda: endpoint.stats().prefix_tree_nodes == 0)
        endpoint.expect([job("xyz" * 50).request], "one")
        await eventually(lambda: endpoint.stats().prefix_tree_nodes == 1)


@pytest.mark.parametrize("make", ["local", "process"])
async def test_draining_ends_what_comes_and_not_what_runs(make: str) -> None:
    if make == "local":
        engine = ScriptedEngine()
        engine.hold("HOLD")
        await drain_and_close(LocalEndpoint(engine))
    else:
        async with running() as endpoint:
            await drain_and_close(endpoint)


async def drain_and_close(endpoint: Endpoint) -> None:
    states = states_of(endpoint)
    async with aclosing(endpoint.generate(job("HOLD"))) as deltas:
        await anext(deltas)
        endpoint.drain()
        assert states == ["draining"]
        with pytest.raises(UnavailableError, match="shutting down"):
            await deltas_of(endpoint, job("another"))
        assert endpoint.stats() is not None
    await endpoint.aclose()
    assert states == ["draining", "dead"]


async def test_closing_ends_what_runs() -> None:
    async with running() as endpoint:
        async with aclosing(endpoint.generate(job("HOLD"))) as deltas:
            await anext(deltas)
            await endpoint.aclose()
            with pytest.raises(UnavailableError, match="shutting down"):
                await anext(deltas)
        with pytest.raises(UnavailableError, match="shutting down"):
            await endpoint.tokenize(job("another").request)


async def test_before_its_start_it_takes_nothing() -> None:
    endpoint = ProcessEndpoint(recipe("troubled"))
    assert endpoint.state == "starting"
    with pytest.raises(EndpointLostError, match="not been started"):
        await endpoint.tokenize(job("early").request)
    with pytest.raises(UnavailableError):
        _ = endpoint.card
    await endpoint.aclose()
    assert endpoint.state == "dead"


async def test_how_far_a_start_is_is_told():
    told: list[Stage] = []
    endpoint = ProcessEndpoint(recipe("loads_for_a_while"), loading=told.append)
    try:
        await endpoint.start()
    finally:
        await endpoint.aclose()
    counted = [stage.done for stage in told if stage == Stage("counting", stage.done, 30)]
    assert len(counted) > 3
    assert counted == sorted(counted)
