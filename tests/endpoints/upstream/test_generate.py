"""What an upstream answers, as our deltas."""

import json
from pathlib import Path
from typing import Any

import pytest

from parrot_backend.endpoints.cards import MeasuredCard, write_card
from parrot_backend.engines.base import Delta
from parrot_backend.wire.errors import EndpointLostError, EngineError, InvalidRequestError
from parrot_backend.wire.text_protocol import PromptRequest
from tests.endpoints.process.children import deltas_of
from tests.endpoints.upstream.servers import DONE, Asked, delta, job, scripted, upstream, usage
from tests.endpoints.upstream.test_recognize import kind_of_server


async def test_an_answer_comes_in_deltas_with_the_usage_at_its_end() -> None:
    async with scripted() as server, upstream(server) as endpoint:
        deltas = await deltas_of(endpoint, job("Hello?", temperature=0))
        assert [delta.text for delta in deltas] == ["Hel", "lo", ""]
        assert deltas[-1] == Delta("", (), 4, "stop", prompt_tokens=7, untold_tokens=1)
        assert sum(delta.untold_tokens for delta in deltas) == 3
        assert server.jobs[0].body == {
            "model": "a-model",
            "messages": [{"role": "user", "content": "Hello?"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0,
        }


@pytest.mark.parametrize(
    ("kind", "counted", "told"),
    [
        ("vllm", usage(7, 3, 4), [False, False, True]),
        ("vllm", usage(7, 3, 0), [False, False, True]),
        ("vllm", usage(7, 3), [False, False, False]),
        ("ollama", usage(7, 3, 0), [False, False, False]),  # it has the field, and does not count
    ],
)
async def test_cached_tokens_are_told_when_the_server_has_told_them(
    kind: str, counted: dict[str, Any], told: list[bool]
) -> None:
    async def answer(asked: Asked) -> None:
        await asked.events(delta("Hel"), delta("lo"), delta("", "stop"), counted, DONE)

    model = "llama3.2" if kind == "ollama" else None
    async with kind_of_server(kind) as server, upstream(server, model=model) as endpoint:
        server.routes["/v1/chat/completions"] = answer
        deltas = await deltas_of(endpoint, job())
        assert [d.tells_cached for d in deltas] == told


async def test_llama_cpp_tells_cached_tokens_with_its_timings() -> None:
    async def answer(asked: Asked) -> None:
        await asked.events(delta("Hel") | {"timings": {"cache_n": 5}}, delta("", "stop"))

    async with kind_of_server("llamacpp") as server, upstream(server) as endpoint:
        server.routes["/v1/chat/completions"] = answer
        deltas = await deltas_of(endpoint, job())
        assert [(d.tells_cached, d.cached_tokens) for d in deltas] == [(True, 5)] * 2


async def test_a_stream_is_read_however_it_is_cut_and_commented() -> None:
    text = "é🦜"
    lines = [
        ": a comment, as routers send them while they wait",
        "event: message",
        f"data: {json.dumps(delta(text), ensure_ascii=False)}",
        "id: 3",
        f"data:{json.dumps(delta(' end', 'stop'))}",
        "data: [DONE]",
    ]

    async def answer(asked: Asked) -> None:
        await asked.send(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\r\n"
        )
        for byte in "\r\n\r\n".join(lines).encode() + b"\r\n\r\n":
            await asked.send(bytes([byte]))
        asked.writer.write_eof()

    async with scripted() as server, upstream(server) as endpoint:
        server.routes["/v1/chat/completions"] = answer
        deltas = await deltas_of(endpoint, job())
        assert [d.text for d in deltas] == [text, " end"]
        assert sum(d.untold_tokens for d in deltas) == 2, "no usage: what came is counted"
        assert deltas[-1].prompt_tokens == 0


async def test_what_an_answer_thinks_is_no_text_but_counts() -> None:
    async def answer(asked: Asked) -> None:
        await asked.events(
            delta("", reasoning_content="Hm"), delta("Yes"), delta("", "stop"), usage(3, 9), DONE
        )

    async with scripted() as server, upstream(server) as endpoint:
        server.routes["/v1/chat/completions"] = answer
        deltas = await deltas_of(endpoint, job())
        assert "".join(d.text for d in deltas) == "Yes"
        assert sum(d.untold_tokens for d in deltas) == 9


@pytest.mark.parametrize(
    ("told", "reason"),
    [("stop", "stop"), ("length", "length"), ("max_tokens", "length"), ("eos", "stop")],
)
async def test_reasons_are_mapped(told: str, reason: str) -> None:
    async def answer(asked: Asked) -> None:
        await asked.events(delta("a", told), DONE)

    async with scripted() as server, upstream(server) as endpoint:
        server.routes["/v1/chat/completions"] = answer
        assert (await deltas_of(endpoint, job()))[-1].finish_reason == reason


async def test_an_answer_that_a_filter_ends_is_an_error() -> None:
    async def answer(asked: Asked) -> None:
        await asked.events(delta("a", "content_filter"), DONE)

    async with scripted() as server, upstream(server) as endpoint:
        server.routes["/v1/chat/completions"] = answer
        with pytest.raises(EngineError, match="filter"):
            await deltas_of(endpoint, job())


async def test_behind_its_end_an_answer_has_no_more_text() -> None:
    async def answer(asked: Asked) -> None:
        await asked.events(delta("A"), delta("B", "stop"), delta("C"), usage(1, 2), DONE)

    async with scripted() as server, upstream(server) as endpoint:
        server.routes["/v1/chat/completions"] = answer
        assert "".join(d.text for d in await deltas_of(endpoint, job())) == "AB"


async def test_halves_of_characters_are_replaced() -> None:
    async def answer(asked: Asked) -> None:
        await asked.events(delta("a\ud800b"), delta("", "stop"))

    async with scripted() as server, upstream(server) as endpoint:
        server.routes["/v1/chat/completions"] = answer
        assert "".join(d.text for d in await deltas_of(endpoint, job())) == "a?b"


async def test_counts_are_none_that_can_not_be() -> None:
    async def answer(asked: Asked) -> None:
        await asked.events(delta("a", "stop"), usage(-7, 10**30, -5), DONE)

    async with scripted() as server, upstream(server) as endpoint:
        server.routes["/v1/chat/completions"] = answer
        last = (await deltas_of(endpoint, job()))[-1]
        assert (last.prompt_tokens, last.cached_tokens, last.untold_tokens) == (0, 0, 2**31)


# Tokens


@pytest.mark.parametrize(
    ("kind", "routes", "asked"),
    [
        (
            "vllm",
            {"/tokenize": {"count": 2, "max_model_len": 9, "tokens": [7, 8]}},
            {"/tokenize": {"messages": [{"role": "user", "content": "Hello?"}]}},
        ),
        (
            "llamacpp",
            {"/apply-template": {"prompt": "<user>Hello?"}, "/tokenize": {"tokens": [7, 8]}},
            {
                "/apply-template": {"messages": [{"role": "user", "content": "Hello?"}]},
                "/tokenize": {"content": "<user>Hello?", "parse_special": True},
            },
        ),
    ],
)
async def test_tokens_are_told_by_those_who_tell_them(
    kind: str, routes: dict[str, Any], asked: dict[str, dict[str, Any]]
) -> None:
    async with kind_of_server(kind) as server, upstream(server) as endpoint:
        server.routes |= routes
        assert await endpoint.tokenize(job().request) == [7, 8]
        for request, (path, body) in zip(server.jobs, asked.items(), strict=True):
            assert request.path == path
            assert body.items() <= request.body.items()
        assert await endpoint.tokenize(PromptRequest(prompt=[1, 2])) == [1, 2]
        server.routes["/tokenize"] = {"error": "none"}
        with pytest.raises(EndpointLostError, match="tells no tokens"):
            await endpoint.tokenize(PromptRequest(prompt="x"))


async def test_tokens_that_nobody_tells_are_refused() -> None:
    async with scripted() as server, upstream(server) as endpoint:
        with pytest.raises(InvalidRequestError, match="does not tell tokens"):
            await endpoint.tokenize(job().request)


async def test_what_the_doctor_measured_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARROT_CACHE_DIR", str(tmp_path))
    async with kind_of_server("vllm") as server:
        card = MeasuredCard(priority_order="refused", batching_changes_tokens=False, slots=3)
        write_card(server.url, "smollm2-135m-instruct", "0.32.0", card)
        async with upstream(server) as endpoint:
            assert endpoint.card.repeatable
            assert endpoint.card.slots == 3
            assert endpoint.known.dialect.priority == "none"


@pytest.mark.parametrize(("measured", "slots"), [(3, 3), (9, 4)])
async def test_slots_are_what_was_measured_and_no_more_than_there_are(
    measured: int, slots: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARROT_CACHE_DIR", str(tmp_path))
    async with kind_of_server("llamacpp") as server:
        async with upstream(server) as endpoint:
            known, told = endpoint.known, endpoint.card
        assert told.slots == 4
        card = MeasuredCard(slots=measured, context_length=1)
        write_card(server.url, known.model.name, known.version, card)
        async with upstream(server) as endpoint:
            assert endpoint.card.slots == slots
            assert endpoint.card.model.context_length == 4096, "as it has been started"
        async with upstream(server, slots=2) as endpoint:
            assert endpoint.card.slots == 2
