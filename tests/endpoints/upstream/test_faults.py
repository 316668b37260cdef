"""Whatever is wrong with an upstream: its jobs fail in time, with an error that says what is wrong."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from parrot_backend.endpoints.upstream import health, probing, rate_limit, runs, stream
from parrot_backend.endpoints.upstream.address import Secret
from parrot_backend.endpoints.upstream.endpoint import UpstreamEndpoint
from parrot_backend.wire.errors import (
    ContextLengthError,
    EndpointLostError,
    EngineError,
    InvalidRequestError,
    UnavailableError,
)
from tests.endpoints.process.children import answer_of, deltas_of, eventually, states_of
from tests.endpoints.upstream.servers import (
    DONE,
    Asked,
    delta,
    hello,
    job,
    scripted,
    upstream,
)

CHAT = "/v1/chat/completions"


async def broken(asked: Asked) -> None:
    asked.cut()


async def cut_in_the_middle(asked: Asked) -> None:
    await asked.events(delta("Hel"), end=False)
    asked.cut()


async def half_closed(asked: Asked) -> None:
    await asked.events(delta("Hel"), end=False)
    asked.writer.write_eof()
    await asyncio.sleep(30)


async def ends_without_a_reason(asked: Asked) -> None:
    await asked.events(delta("Hel"))


async def done_without_a_reason(asked: Asked) -> None:
    await asked.events(delta("Hel"), DONE)


async def garbage(asked: Asked) -> None:
    await asked.events(delta("Hel"), "data: {nonsense\n\n", end=False)


async def no_event(asked: Asked) -> None:
    await asked.events({"choices": [{"delta": {"content": 7}}]})


async def no_http(asked: Asked) -> None:
    await asked.send(b"\x16\x03\x01\x02\x00 this is not HTTP\r\n\r\n")


async def a_page(asked: Asked) -> None:
    await asked.send("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\n<p/>")


async def endless_line(asked: Asked) -> None:
    await asked.events(end=False)
    piece = "x" * (1 << 16)
    while True:
        await asked.chunk(piece)


async def endless_comments(asked: Asked) -> None:
    await asked.events(end=False)
    while True:
        await asked.chunk(":" + "x" * 1000 + "\n")


async def compressed(asked: Asked) -> None:
    head = "content-type: text/event-stream\r\ncontent-encoding: gzip\r\ncontent-length: 4"
    await asked.send(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\nxxxx")


async def no_number(asked: Asked) -> None:
    told = '{"choices": [], "usage": {"prompt_tokens": 1e999}}'
    await asked.events(delta("Hel", "stop"), f"data: {told}\n\n")


async def bad_gateway(asked: Asked) -> None:
    await asked.json("an upstream of mine is gone", 502)


async def error_that_stands_still(asked: Asked) -> None:
    await asked.send(
        "HTTP/1.1 400 X\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
    )
    await asyncio.sleep(30)


async def error_that_is_cut(asked: Asked) -> None:
    await asked.send("HTTP/1.1 500 X\r\ncontent-length: 99\r\n\r\n{")
    asked.cut()


async def breaks_off(asked: Asked) -> None:
    await asked.events(delta("Hel"), {"error": {"message": "CUDA error", "code": 500}})


async def gives_up(asked: Asked) -> None:
    await asked.events(delta("Hel", "abort"), DONE)


@pytest.mark.parametrize(
    "fault",
    [
        broken,
        cut_in_the_middle,
        half_closed,
        ends_without_a_reason,
        done_without_a_reason,
        garbage,
        no_event,
        no_http,
        a_page,
        endless_line,
        endless_comments,
        compressed,
        no_number,
        bad_gateway,
        error_that_stands_still,
        error_that_is_cut,
        breaks_off,
        gives_up,
    ],
)
async def test_an_answer_that_breaks_is_lost_and_the_next_one_comes(
    fault: Callable[[Asked], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "LONGEST_LINE", 1 << 18)
    monkeypatch.setattr(stream, "ERROR_SECONDS", 0.3)
    async with scripted() as server, upstream(server) as endpoint:
        server.routes[CHAT] = fault
        async with asyncio.timeout(5):
            with pytest.raises(EndpointLostError):
                await deltas_of(endpoint, job())
        assert endpoint.state == "ready"  # it answers when it is asked
        server.routes[CHAT] = hello
        assert await answer_of(endpoint, "again") == "Hello"


async def test_an_answer_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def endless(asked: Asked) -> None:
        await asked.events(end=False)
        while True:
            await asked.chunk(delta("x" * 1000))

    monkeypatch.setattr(stream, "LONGEST_ANSWER", 1 << 18)
    async with scripted() as server, upstream(server) as endpoint:
        server.routes[CHAT] = endless
        async with asyncio.timeout(5):
            with pytest.raises(EngineError, match="does not end"):
                await deltas_of(endpoint, job())
        assert endpoint.state == "ready"


async def test_an_answer_that_goes_on_beyond_max_tokens_is_ended() -> None:
    async def endless(asked: Asked) -> None:
        await asked.events(end=False)
        while True:
            await asked.chunk(delta("x"))

    async with scripted() as server, upstream(server) as endpoint:
        server.routes[CHAT] = endless
        async with asyncio.timeout(10):
            with pytest.raises(EngineError, match="does not end at max_tokens"):
                await deltas_of(endpoint, job(max_tokens=3))


async def test_a_long_line_in_small_pieces_is_read_in_time_and_lets_others_work() -> None:
    text = "x" * (1 << 21)

    async def answer(asked: Asked) -> None:
        line = f"data: {json.dumps(delta(text, 'stop'))}\n\n"
        head = "content-type: text/event-stream\r\ntransfer-encoding: chunked"
        await asked.send(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n")
        pieces = (line[i : i + 64] for i in range(0, len(line), 64))
        await asked.send("".join(f"{len(p):x}\r\n{p}\r\n" for p in pieces) + "0\r\n\r\n")

    async with scripted() as server, upstream(server) as endpoint:
        server.routes[CHAT] = answer
        async with asyncio.timeout(10):
            assert await answer_of(endpoint, "x") == text


async def test_a_connection_that_breaks_before_the_answer_is_tried_once_more() -> None:
    async with scripted() as server, upstream(server) as endpoint:
        tries = 0

        async def first_broken(asked: Asked) -> None:
            nonlocal tries
            tries += 1
            await (broken if tries == 1 else hello)(asked)

        server.routes[CHAT] = first_broken
        assert await answer_of(endpoint, "x") == "Hello"
        assert tries == 2


async def test_a_server_that_is_killed_is_dead_at_once_and_comes_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with scripted() as server, upstream(server) as endpoint:
        server.routes[CHAT] = half_forever
        states = states_of(endpoint)
        async with aclosing(endpoint.generate(job())) as deltas:
            assert (await anext(deltas)).text == "Hel"
            begun = time.monotonic()
            await server.stop()
            with pytest.raises(EndpointLostError, match="can't be reached"):
                await anext(deltas)
        assert time.monotonic() - begun < 2
        assert states == ["dead"]
        place = server.url.removeprefix("http://")
        assert endpoint.why is not None
        assert "can't be reached" in endpoint.why
        assert f"the engine at {place} is lost: {endpoint.why}" in caplog.messages
        with pytest.raises(EndpointLostError, match="the engine is dead"):
            await deltas_of(endpoint, job())
        server.routes[CHAT] = hello
        await server.start()
        await eventually(lambda: endpoint.state == "ready")
        assert states == ["dead", "starting", "ready"]
        assert endpoint.why is None
        assert await answer_of(endpoint, "again") == "Hello"


async def half_forever(asked: Asked) -> None:
    await asked.events(delta("Hel"), end=False)
    await asyncio.sleep(60)


@pytest.mark.parametrize("stalls", [1, 99])
async def test_while_our_own_loop_stands_still_nobody_is_found_dead(
    monkeypatch: pytest.MonkeyPatch, stalls: int
) -> None:
    """A timeout that passes meanwhile is no fault of the server's, unless it is always so."""
    monkeypatch.setattr(probing, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(health, "_LATE_SECONDS", 0.3)
    async with scripted() as server, upstream(server) as endpoint:
        get, left = endpoint._client.get, [stalls]

        async def late(*args: Any, **options: Any) -> Any:
            if left[0]:
                left[0] -= 1
                asyncio.get_running_loop().call_soon(time.sleep, 0.6)
            return await get(*args, **options)

        monkeypatch.setattr(endpoint._client, "get", late)
        await endpoint._health.doubt("it took long")
        assert endpoint.state == ("ready" if stalls == 1 else "dead")


async def test_one_that_dies_while_nothing_runs_is_found_dead() -> None:
    async with scripted() as server, upstream(server) as endpoint:
        begun = time.monotonic()
        await server.stop()
        await eventually(lambda: endpoint.state == "dead")
        assert time.monotonic() - begun < 10


async def test_one_that_comes_back_with_another_model_stays_dead() -> None:
    async with scripted() as server, upstream(server) as endpoint:
        server.models("another-model")
        await eventually(lambda: endpoint.state == "dead")
        with pytest.raises(EndpointLostError, match="serves another-model and no more 'a-model'"):
            await deltas_of(endpoint, job())
        await asyncio.sleep(1)
        assert endpoint.state == "dead"
        server.models("a-model")
        await eventually(lambda: endpoint.state == "ready")


async def test_a_model_that_is_gone_is_told_by_the_refusal() -> None:
    async def gone(asked: Asked) -> None:
        await asked.json({"error": {"message": "The model `a-model` does not exist."}}, 404)

    async with scripted() as server, upstream(server) as endpoint:
        server.routes[CHAT] = gone
        server.models("another-model")
        with pytest.raises(EndpointLostError, match="serves another-model and no more 'a-model'"):
            await deltas_of(endpoint, job())
        assert endpoint.state == "dead"


async def test_a_model_that_is_refused_and_still_served_is_the_requests_fault() -> None:
    async def gone(asked: Asked) -> None:
        await asked.json({"error": {"message": "The model `a-model` does not exist."}}, 404)

    async with scripted() as server, upstream(server) as endpoint:
        server.routes[CHAT] = gone
        with pytest.raises(InvalidRequestError, match="does not exist") as told:
            await deltas_of(endpoint, job())
        assert told.value.param == "model"
        assert endpoint.state == "ready"


GARBAGE = [
    {"data": ["x"]},
    {"data": [{"id": "a-model", "owned_by": ["x"], "root": {"a": 1}}]},
    [1],
    "no JSON",
]


@pytest.mark.parametrize("told", GARBAGE)
async def test_what_answers_a_probe_with_garbage_is_watched_on(
    told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scripted() as server, upstream(server) as endpoint:
        good, server.routes["/v1/models"] = server.routes["/v1/models"], told
        await eventually(lambda: server.probes >= 3)
        await server.stop()
        await eventually(lambda: endpoint.state == "dead")
        await server.start()
        await eventually(lambda: server.probes >= 5)
        server.routes["/v1/models"] = good
        await eventually(lambda: endpoint.state == "ready")


async def test_a_fault_of_our_own_in_a_probe_does_not_end_the_watching(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def raises(*_: object) -> None:
        raise AttributeError("of something that is none")

    async with scripted() as server, upstream(server) as endpoint:
        with monkeypatch.context() as patched:
            patched.setattr(health, "trouble_of", raises)
            patched.setattr(health, "recognized", raises)
            await eventually(lambda: endpoint.state == "dead")
            with pytest.raises(EndpointLostError, match="nothing that we understand"):
                await deltas_of(endpoint, job())
            await asyncio.sleep(1)
        await eventually(lambda: endpoint.state == "ready")


@pytest.mark.parametrize("how", ["while it answers", "before it answers"])
async def test_a_server_that_stands_still_is_lost(how: str) -> None:
    code = """
        import asyncio, json, sys
        async def serve(reader, writer):
            while head := await reader.readuntil(b"\\r\\n\\r\\n"):
                chat = b"POST" in head
                if chat:
                    length = int(head.lower().split(b"content-length: ")[1].split(b"\\r\\n")[0])
                    await reader.readexactly(length)
                    if sys.argv[1] == "before it answers":
                        await asyncio.sleep(1000)
                    writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-type: text/event-stream\\r\\n\\r\\n")
                    while True:
                        writer.write(b'data: {"choices":[{"delta":{"content":"x"}}]}\\n\\n')
                        await asyncio.sleep(0.05)
                body = json.dumps({"data": [{"id": "a-model"}]}).encode()
                head = f"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: "
                writer.write(head.encode() + b"%d\\r\\n\\r\\n" % len(body) + body)
        async def main():
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            print(server.sockets[0].getsockname()[1], flush=True)
            await server.serve_forever()
        asyncio.run(main())
    """
    child = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", textwrap.dedent(code), how], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    endpoint = UpstreamEndpoint(f"http://127.0.0.1:{child.stdout.readline().strip()}")
    try:
        await endpoint.start()
        running = asyncio.create_task(deltas_of(endpoint, job()))
        await asyncio.sleep(0.5)
        os.kill(child.pid, signal.SIGSTOP)
        begun = time.monotonic()
        with pytest.raises(EndpointLostError, match="does not answer"):
            await running
        assert time.monotonic() - begun < 14
        assert endpoint.state == "dead"
        os.kill(child.pid, signal.SIGCONT)
        await eventually(lambda: endpoint.state == "ready")
    finally:
        await endpoint.aclose()
        child.kill()
        child.wait()
        child.stdout.close()


async def test_one_that_accepts_and_never_answers_can_not_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def nothing(_: Asked) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(
        "parrot_backend.endpoints.upstream.client.Client.get.__kwdefaults__", {"seconds": 0.3}
    )
    async with scripted() as server:
        server.routes["/v1/models"] = nothing
        endpoint = UpstreamEndpoint(server.url)
        with pytest.raises(EndpointLostError, match="does not answer in time"):
            await endpoint.start()
        await endpoint.aclose()


async def test_a_slow_answer_is_waited_for_as_long_as_the_server_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def slow(asked: Asked) -> None:
        await asyncio.sleep(1.0)
        await hello(asked)

    async with scripted() as server, upstream(server, hang_seconds=0.1) as endpoint:
        server.routes[CHAT] = slow
        before = server.probes
        assert await answer_of(endpoint, "x") == "Hello"
        assert server.probes > before  # it was asked how it is, as the answer was silent


async def test_what_sends_nothing_for_very_long_has_lost_the_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream, "SILENT_SECONDS", 0.3)
    async with scripted() as server, upstream(server) as endpoint:
        server.routes[CHAT] = half_forever
        with pytest.raises(EndpointLostError, match="said nothing"):
            await deltas_of(endpoint, job())
        assert endpoint.state == "ready"


async def test_a_server_that_sends_lives_though_it_misses_probes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probing, "PROBE_SECONDS", 0.2)
    async with scripted() as server, upstream(server) as endpoint:

        async def talking(asked: Asked) -> None:
            server.routes["/v1/models"] = lambda _: asyncio.sleep(60)
            await asked.events(end=False)
            for _ in range(80):
                await asked.chunk(delta("x"))
                await asyncio.sleep(0.05)
            await asked.chunk(delta("", "stop"))
            await asked.chunk(DONE)
            await asked.send("0\r\n\r\n")

        server.routes[CHAT] = talking
        assert await answer_of(endpoint, "x") == "x" * 80


# Keys


async def wants_a_key(asked: Asked) -> None:
    given = asked.headers.get("authorization")
    if given == "Bearer sk-good":
        await asked.json({"data": [{"id": "a-model"}]})
    else:
        await asked.json({"error": {"message": f"Incorrect API key provided: {given}"}}, 401)


async def test_a_key_that_is_missing_or_wrong_is_told_without_telling_it() -> None:
    async with scripted() as server:
        server.routes["/v1/models"] = wants_a_key
        for key, words in (None, "wants an API key"), (Secret("sk-bad"), "refuses the API key"):
            endpoint = UpstreamEndpoint(server.url, key=key)
            with pytest.raises(EngineError, match=words) as told:
                await endpoint.start()
            assert "sk-bad" not in told.value.message
            await endpoint.aclose()
        async with upstream(server, key=Secret("sk-good")) as endpoint:
            assert await answer_of(endpoint, "x") == "Hello"
            assert server.jobs[-1].headers["authorization"] == "Bearer sk-good"


async def test_a_key_that_ends_makes_it_dead() -> None:
    async def ended(asked: Asked) -> None:
        await asked.json({"error": {"message": "the key sk-good has expired"}}, 401)

    async with scripted() as server:
        server.routes["/v1/models"] = wants_a_key
        async with upstream(server, key=Secret("sk-good")) as endpoint:
            server.routes[CHAT] = server.routes["/v1/models"] = ended
            with pytest.raises(EndpointLostError, match="refuses the API key"):
                await deltas_of(endpoint, job())
            assert endpoint.state == "dead"


async def test_a_key_that_is_only_asked_for_by_answers_is_not_tried_all_the_time() -> None:
    async with scripted() as server, upstream(server) as endpoint:
        server.routes[CHAT] = wants_a_key
        with pytest.raises(EndpointLostError, match="wants an API key"):
            await deltas_of(endpoint, job())
        await eventually(lambda: endpoint.state == "ready")
        assert endpoint.card.slots == 0
        with pytest.raises(EndpointLostError, match="left alone"):
            await deltas_of(endpoint, job())
        assert len(server.jobs) == 1


# Busy

FAR = "Wed, 21 Oct 99999999999 07:28:00 GMT"


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("told", [None, "seconds", "date", "nonsense", "far"])
async def test_a_busy_server_is_asked_again_and_given_less(status: int, told: str | None) -> None:
    refused = 2
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    header = {"seconds": "1", "date": date, "nonsense": "soon", "far": FAR}.get(told or "")

    async def busy(asked: Asked) -> None:
        nonlocal refused
        if not refused:
            return await hello(asked)
        refused -= 1
        headers = {} if header is None else {"retry_after": header}
        return await asked.json({"error": {"message": "slow down"}}, status, **headers)

    async with scripted() as server, upstream(server, slots=8) as endpoint:
        server.routes[CHAT] = busy
        assert endpoint.card.slots == 8
        begun = time.monotonic()
        answers = await asyncio.gather(*(answer_of(endpoint, f"{i}") for i in range(4)))
        assert answers == ["Hello"] * 4
        assert endpoint.card.slots < 4
        assert time.monotonic() - begun > (0.9 if told in ("seconds", "date") else 0.4)


async def test_one_that_is_busy_for_very_long_is_not_waited_for() -> None:
    async def busy(asked: Asked) -> None:
        await asked.json({"error": {"message": "slow down"}}, 429, retry_after="3000")

    async with scripted() as server, upstream(server) as endpoint:
        server.routes[CHAT] = busy
        with pytest.raises(EndpointLostError, match="slow down"):
            await deltas_of(endpoint, job())
        assert (endpoint.state, endpoint.card.slots) == ("ready", 0)
        with pytest.raises(EndpointLostError, match="left alone") as told:
            await deltas_of(endpoint, job())
        assert told.value.retry_after is not None
        assert 2900 < told.value.retry_after <= 3000


@pytest.mark.parametrize("status", [402, 429])
async def test_an_account_with_nothing_left_is_told_and_tried_again_by_one(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def empty(asked: Asked) -> None:
        await asked.json({"error": {"message": "no quota", "code": "insufficient_quota"}}, status)

    monkeypatch.setattr(runs, "_SHUT_OUT_SECONDS", 0.5)
    async with scripted() as server, upstream(server) as endpoint:
        server.routes[CHAT] = empty
        with pytest.raises(EndpointLostError, match="nothing left: no quota"):
            await deltas_of(endpoint, job())
        with pytest.raises(EndpointLostError, match="left alone"):
            await deltas_of(endpoint, job())
        assert (endpoint.state, endpoint.card.slots, len(server.jobs)) == ("ready", 0, 1)
        await eventually(lambda: endpoint.card.slots == 1)
        server.routes[CHAT] = hello
        assert await answer_of(endpoint, "x") == "Hello"
        assert endpoint.card.slots == 16


async def test_who_watches_is_told_when_there_are_no_slots_and_when_there_are_again() -> None:
    async def busy(asked: Asked) -> None:
        server.routes[CHAT] = hello
        await asked.json({"error": {"message": "slow down"}}, 429, retry_after="1")

    async with scripted() as server, upstream(server, slots=8) as endpoint:
        server.routes[CHAT] = busy
        slots: list[int] = []
        endpoint.watch(lambda: slots.append(endpoint.card.slots))
        running = asyncio.create_task(answer_of(endpoint, "x"))
        await eventually(lambda: len(slots) == 1)
        assert slots == [0]
        await eventually(lambda: len(slots) == 2)
        assert slots == [0, 1]
        assert await running == "Hello"


@pytest.mark.parametrize("told", ["0", "Wed, 21 Oct 2015 07:28:00 GMT"])
async def test_one_that_says_at_once_is_asked_less_and_less_often(told: str) -> None:
    async def busy(asked: Asked) -> None:
        await asked.json({"error": {"message": "slow down"}}, 429, retry_after=told)

    async with scripted() as server, upstream(server) as endpoint:
        server.routes[CHAT] = busy
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(deltas_of(endpoint, job()), 3)
        assert 2 <= len(server.jobs) <= 4


async def test_one_that_is_refused_again_and_again_goes_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def busy(asked: Asked) -> None:
        await asked.json({"error": {"message": "slow down"}}, 429)

    monkeypatch.setattr(rate_limit, "_FIRST", 0.01)
    monkeypatch.setattr(rate_limit, "_MOST", 0.01)
    async with scripted() as server, upstream(server) as endpoint:
        server.routes[CHAT] = busy
        with pytest.raises(EndpointLostError, match="slow down"):
            await deltas_of(endpoint, job())
        assert len(server.jobs) == rate_limit.MOST_TRIES


# The request's own fault


@pytest.mark.parametrize(
    ("status", "body", "error", "param"),
    [
        (400, {"error": {"message": "bad top_p", "param": "top_p"}}, InvalidRequestError, "top_p"),
        (422, {"detail": [{"loc": ["body", "x"], "msg": "no"}]}, InvalidRequestError, None),
        (
            400,
            {"error": {"message": "too long", "code": "context_length_exceeded"}},
            ContextLengthError,
            None,
        ),
        (
            400,
            {
                "error": {
                    "code": 400,
                    "message": "request (9412 tokens) exceeds the available context size "
                    "(8192 tokens), try increasing it",
                    "type": "exceed_context_size_error",
                }
            },
            ContextLengthError,
            None,
        ),
        (400, "plain words", InvalidRequestError, None),
    ],
)
async def test_a_refusal_is_the_requests_fault_and_told_in_the_servers_words(
    status: int, body: object, error: type[InvalidRequestError], param: str | None
) -> None:
    async def refuse(asked: Asked) -> None:
        await asked.json(body, status)

    async with scripted() as server, upstream(server) as endpoint:
        server.routes[CHAT] = refuse
        with pytest.raises(InvalidRequestError) as told:
            await deltas_of(endpoint, job())
        assert type(told.value) is error
        assert told.value.param == param
        assert "refuses the request" in told.value.message
        assert endpoint.state == "ready"
        assert len(server.jobs) == 1


async def test_a_redirect_is_not_followed() -> None:
    async with scripted() as server, scripted() as other:

        async def elsewhere(asked: Asked) -> None:
            await asked.json("over there", 307, location=other.url + asked.path)

        async with upstream(server) as endpoint:
            server.routes[CHAT] = elsewhere
            with pytest.raises(EngineError, match="redirect"):
                await deltas_of(endpoint, job())
        server.routes["/v1/models"] = elsewhere
        endpoint = UpstreamEndpoint(server.url)
        with pytest.raises(EngineError, match="redirect"):
            await endpoint.start()
        await endpoint.aclose()
        assert not other.asked


# Ends


async def test_closing_the_answer_closes_the_connection() -> None:
    async with scripted() as server, upstream(server) as endpoint:
        server.routes[CHAT] = half_forever
        deltas = endpoint.generate(job())
        assert (await anext(deltas)).text == "Hel"
        assert endpoint.stats().running == 1
        await deltas.aclose()
        await asyncio.wait_for(server.jobs[0].closed.wait(), 2)
        assert endpoint.stats().running == 0


async def test_an_answer_that_is_complete_leaves_its_connection_to_the_next() -> None:
    async with scripted() as server, upstream(server) as endpoint:
        await answer_of(endpoint, "one")
        await answer_of(endpoint, "two")
        one, two = server.jobs
        assert one.writer is two.writer


async def test_draining_lets_run_and_closing_does_not() -> None:
    async with scripted() as server, upstream(server) as endpoint:
        server.routes[CHAT] = half_forever
        async with aclosing(endpoint.generate(job())) as deltas:
            await anext(deltas)
            endpoint.drain()
            assert endpoint.state == "draining"
            with pytest.raises(UnavailableError):
                await deltas_of(endpoint, job())
            going_on = asyncio.create_task(anext(deltas))  # type: ignore[arg-type]
            await asyncio.sleep(0.1)
            assert not going_on.done()
            await endpoint.aclose()
            with pytest.raises(UnavailableError, match="shutting down"):
                await going_on
        assert endpoint.state == "dead"


async def test_closing_cancels_nobody_who_asks_whether_it_lives() -> None:
    async def never(_: Asked) -> None:
        await asyncio.sleep(60)

    async with scripted() as server, upstream(server) as endpoint:
        server.routes[CHAT], server.routes["/v1/models"] = broken, never
        probes = server.probes
        running = asyncio.create_task(deltas_of(endpoint, job()))
        await eventually(lambda: server.probes > probes)
        await endpoint.aclose()
        with pytest.raises(UnavailableError, match="shutting down"):
            await running


async def test_nothing_is_left_of_many_that_were_closed() -> None:
    count = 50
    async with scripted() as server, upstream(server, slots=64) as endpoint:
        server.routes[CHAT] = half_forever
        tasks = [asyncio.create_task(deltas_of(endpoint, job(f"{i}"))) for i in range(count)]
        await eventually(lambda: len(server.jobs) == count)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert endpoint.stats().running == 0
        await eventually(lambda: all(asked.closed.is_set() for asked in server.jobs))
        server.routes[CHAT] = hello
        assert await answer_of(endpoint, "x") == "Hello"


async def test_what_is_lost_twice_at_once_is_lost_once() -> None:
    async with scripted() as server, upstream(server) as endpoint:
        server.routes[CHAT] = half_forever
        running = asyncio.create_task(deltas_of(endpoint, job()))
        await eventually(lambda: bool(server.jobs))
        await asyncio.sleep(0.1)
        await asyncio.gather(server.stop(), endpoint.aclose())
        with pytest.raises(UnavailableError):
            await running
