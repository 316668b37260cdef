"""Prefill ahead on servers that have no word for it."""

import asyncio
from contextlib import aclosing
from typing import Any

from parrot_backend.endpoints.upstream.ahead import beginning_of
from parrot_backend.wire.protocol import ChatRequest
from parrot_backend.wire.text_protocol import PromptRequest
from tests.endpoints.process.children import deltas_of, eventually
from tests.endpoints.upstream.servers import DONE, Asked, Scripted, delta, job, usage
from tests.endpoints.upstream.servers import upstream as running
from tests.endpoints.upstream.test_faults import half_forever
from tests.endpoints.upstream.test_recognize import kind_of_server

CHAT = "/v1/chat/completions"
LONG = "What all of them begin with. " * 60


def chat(*contents: str, **parameters: Any) -> ChatRequest:
    roles = ["system", "user", "assistant", "user"]
    messages = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)]
    return ChatRequest.model_validate({"messages": messages, **parameters})


def counting(cached: int = 0) -> Any:
    async def answer(asked: Asked) -> None:
        await asked.events(delta("a", "length"), usage(500, 1, cached), DONE)

    return answer


async def settled(server: Scripted, jobs: int) -> None:
    await eventually(lambda: len(server.jobs) >= jobs)
    await asyncio.sleep(0.1)


def test_the_beginning_is_what_all_examples_have() -> None:
    request = beginning_of([chat("System", "doc: 0", temperature=0.7), chat("System", "doc: a")])
    assert isinstance(request, ChatRequest)
    assert [(m.role, m.content) for m in request.messages] == [
        ("system", "System"),
        ("user", "doc: "),
    ]
    assert (request.max_tokens, request.temperature) == (1, 0.0)
    whole = beginning_of([chat("System", "all")])
    assert isinstance(whole, ChatRequest)
    assert len(whole.messages) == 2
    assert beginning_of([chat("0"), chat("a")]) is None
    assert beginning_of([]) is None
    text = beginning_of([PromptRequest(prompt="abc0"), PromptRequest(prompt="abca")])
    assert isinstance(text, PromptRequest)
    assert text.prompt == "abc"
    assert beginning_of([PromptRequest(prompt=[1, 2])]) is None
    assert beginning_of([chat("x"), PromptRequest(prompt="x")]) is None


async def test_what_is_expected_is_computed_and_counted_when_it_was_of_use() -> None:
    async with kind_of_server("vllm") as server, running(server) as endpoint:
        server.routes[CHAT] = counting()
        forget = endpoint.expect([chat(LONG + "0"), chat(LONG + "a")], "")
        await settled(server, 1)
        sent = server.jobs[0].body
        assert sent["messages"] == [{"role": "system", "content": LONG}]
        assert sent["max_tokens"] == 1
        assert sent["priority"] > 10**9  # behind everybody else
        assert endpoint.stats().tokens_prefilled_ahead == 500
        server.routes[CHAT] = counting(cached=480)
        for _ in range(2):
            await deltas_of(endpoint, job(LONG + "b"))  # of another role, so of no use
        assert endpoint.stats().tokens_ahead_used == 0
        request = chat(LONG + "b")
        await deltas_of(endpoint, type(job())(request))
        await deltas_of(endpoint, type(job())(request))
        forget()
        stats = endpoint.stats()
        assert (stats.tokens_ahead_used, stats.tokens_ahead_wasted) == (480, 0)


async def test_what_was_of_no_use_is_counted_so() -> None:
    async with kind_of_server("vllm") as server, running(server) as endpoint:
        server.routes[CHAT] = counting()
        forget = endpoint.expect([chat(LONG)], "")
        again = endpoint.expect([chat(LONG)], "")
        await settled(server, 1)
        assert len(server.jobs) == 1  # equal beginnings are computed once
        forget()
        forget()
        assert endpoint.stats().tokens_ahead_wasted == 0
        again()
        assert endpoint.stats().tokens_ahead_wasted == 500


async def test_only_idle_slots_compute_ahead_and_a_real_job_takes_the_slot() -> None:
    async with kind_of_server("vllm") as server, running(server, slots=1) as endpoint:
        server.routes[CHAT] = half_forever
        async with aclosing(endpoint.generate(job("now"))) as deltas:
            await anext(deltas)
            endpoint.expect([chat(LONG)], "")
            await asyncio.sleep(0.1)
            assert len(server.jobs) == 1
        await settled(server, 2)
        ahead = server.jobs[1]
        assert ahead.body["max_tokens"] == 1
        server.routes[CHAT] = counting()
        await deltas_of(endpoint, job("at once"))
        await asyncio.wait_for(ahead.closed.wait(), 2)
        assert endpoint.stats().tokens_prefilled_ahead == 0


async def test_what_a_job_computes_itself_is_not_computed_ahead_any_more() -> None:
    async with kind_of_server("vllm") as server, running(server, slots=1) as endpoint:
        server.routes[CHAT] = half_forever
        async with aclosing(endpoint.generate(job("now"))) as deltas:
            await anext(deltas)
            endpoint.expect([chat(LONG)], "")
            server.routes[CHAT] = counting()
            await deltas_of(endpoint, type(job())(chat(LONG + "it is here")))
        await asyncio.sleep(0.1)
        assert len(server.jobs) == 2


async def test_short_beginnings_and_servers_that_keep_none_are_left_alone() -> None:
    async with kind_of_server("vllm") as server, running(server) as endpoint:
        endpoint.expect([chat("short")], "")()
        await asyncio.sleep(0.1)
        assert not server.jobs
    async with kind_of_server("ollama") as server, running(server, model="llama3.2") as endpoint:
        assert not endpoint.card.pins
        endpoint.expect([chat(LONG)], "")()
        await asyncio.sleep(0.1)
        assert [asked.path for asked in server.jobs] == ["/api/show"]


async def test_what_fails_ahead_is_nobodys_loss() -> None:
    async with kind_of_server("vllm") as server, running(server) as endpoint:

        async def refuse(asked: Asked) -> None:
            await asked.json({"error": {"message": "no"}}, 400)

        server.routes[CHAT] = refuse
        forget = endpoint.expect([chat(LONG)], "")
        await settled(server, 1)
        assert endpoint.stats().tokens_prefilled_ahead == 0
        forget()
        assert endpoint.state == "ready"
