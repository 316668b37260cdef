"""Request bodies over real sockets: their bounds, their deadlines, and what they don't hold up."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from parrot_backend.serving.limits import Limits
from parrot_backend.serving.sessions.session import Session
from parrot_backend.wire.protocol import Program
from tests.doubles import ScriptedEngine
from tests.servers import Watch, eventually, serving

LIMITS = Limits(body_bytes=3_000_000, body_seconds=2.0)
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


@pytest.fixture(scope="module")
def url(watch: Watch) -> Iterator[str]:
    with serving(ScriptedEngine(lambda _: "ok"), limits=LIMITS, watch=watch) as base:
        yield base


def chat(content: Any) -> str:
    return json.dumps({"messages": [{"role": "user", "content": content}]})


def post(
    url: str, content: str | bytes | Iterator[bytes], path: str = "/v1/chat/completions"
) -> Any:
    return httpx.post(f"{url}{path}", content=content, headers=JSON, timeout=30)


def error(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json()["error"]["code"]


def connected(url: str, begin: bytes, announced: int) -> socket.socket:
    """A connection that has sent a chat's head and the beginning of its body."""
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=10)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {announced}\r\n\r\n"
    )
    connection.sendall(head.encode() + begin)
    return connection


def answer_of(connection: socket.socket) -> str:
    """All that comes until the server ends the connection."""
    with connection:
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused(url: str, chunked: bool) -> None:
    content = chat("x" * 4_000_000).encode()
    pieces = (content[at : at + 65536] for at in range(0, len(content), 65536))
    assert error(post(url, pieces if chunked else content)) == (413, "body_too_large")


def test_bodies_are_bounded_together_and_make_room_when_they_go() -> None:
    half = b'{"messages": [{"role": "user", "content": "' + b"x" * 1_400_000
    limits = Limits(bodies_bytes=3_000_000)
    with serving(ScriptedEngine(lambda _: "ok"), limits=limits) as url, ExitStack() as holding:
        for _ in range(2):
            holding.enter_context(connected(url, half, 1_500_000))
        time.sleep(0.5)  # until they are read: whoever goes over the bound is refused
        assert eventually(lambda: post(url, chat("x" * 500_000)).status_code != 200)
        refused = post(url, chat("x" * 500_000))
        assert error(refused) == (refused.status_code, "overloaded")
        assert refused.headers["retry-after"] == "1"
        assert post(url, chat("x")).status_code == 200, "there is room for this one"
        holding.close()
        assert eventually(lambda: post(url, chat("x" * 500_000)).status_code == 200)


def test_a_body_counts_until_it_has_become_a_program_or_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submit, submitting, go_on = Session.submit, threading.Semaphore(0), threading.Event()
    engine = ScriptedEngine(lambda _: "ok")
    held = "x" * 1_400_000
    run = engine.hold(held)
    chats: list[Future[Any]] = []

    async def slow(session: Session, program: Program) -> None:
        submitting.release()
        await asyncio.to_thread(go_on.wait, 30)
        await submit(session, program)

    monkeypatch.setattr(Session, "submit", slow)
    opening = json.dumps({"program": {"variables": {"a": held}}})
    with (
        serving(engine, limits=Limits(bodies_bytes=3_000_000)) as url,
        ThreadPoolExecutor(5) as pool,
    ):
        for n in range(3):
            chats.append(pool.submit(post, url, chat(held)))
            runs = partial(lambda count: engine.running == count, n + 1)
            assert eventually(runs, timeout=20), "what runs does not count"
        openings = [pool.submit(post, url, opening, "/v1/sessions") for _ in range(2)]
        for _ in openings:  # one that is being read would be refused for what comes meanwhile
            assert submitting.acquire(timeout=20)
        assert post(url, chat("x" * 500_000)).status_code == 503
        go_on.set()
        assert [each.result().status_code for each in openings] == [200, 200]
        assert post(url, chat("x" * 500_000)).status_code == 200
        run._loop.call_soon_threadsafe(run.set)  # type: ignore[attr-defined]
        assert [each.result().status_code for each in chats] == [200] * 3


def test_a_body_that_stalls_is_ended(url: str) -> None:
    begun = time.monotonic()
    told = answer_of(connected(url, b'{"messages"', 1000))
    assert told.startswith("HTTP/1.1 408 ")
    assert '"code":"body_too_slow"' in told
    assert time.monotonic() - begun < 5


def test_a_body_that_trickles_is_ended(url: str) -> None:
    connection = connected(url, b'{"messages"', 1000)
    for _ in range(30):
        time.sleep(0.1)
        try:
            connection.sendall(b" ")
        except OSError:
            break
    else:
        pytest.fail("it went on")
    connection.close()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"messages": [', "not valid JSON: Expecting value"),
        (b'{"messages": "\xff"}', "not valid JSON: no UTF-8"),
        (b"1" * 5000, "not valid JSON: a number is too long"),
        (b"[" * 100_000, "nested more than 128 levels deep"),
    ],
)
def test_what_is_no_json_is_refused(url: str, content: bytes, message: str) -> None:
    answer = post(url, content)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


def test_a_body_that_is_not_called_json_is_refused(url: str) -> None:
    answer = httpx.post(f"{url}/v1/chat/completions", content=chat("x"))
    assert answer.status_code == 400
    assert "Content-Type: application/json" in answer.json()["error"]["message"]


@pytest.mark.parametrize("padding", [0, 100_000])
def test_errors_are_alike_for_small_and_large_bodies(url: str, padding: int) -> None:
    messages = [{"role": "user", "content": "x" * padding}, {"role": "user", "content": [{}]}]
    answer = post(url, json.dumps({"messages": messages}))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "messages.1.content"


def test_a_large_body_holds_nobody_up(url: str, watch: Watch) -> None:
    call = {"messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 90}]}]}
    calls = [{"id": f"c{i}", "output": f"o{i}", **call} for i in range(10_000)]
    content = json.dumps({"program": {"calls": calls, "outputs": [{"variable": "no name"}]}})
    watch.longest = 0.0
    answer = post(url, content, "/v1/sessions")
    assert answer.json()["error"]["param"] == "program.outputs.0.variable"
    assert watch.longest < 0.5
