"""Signs of life: of what is open for long, together, and of nothing that is over or another's."""

import asyncio
import gc
import logging
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from parrot_backend.wire.protocol import Program
from parrot_backend.wire.views import SessionView
from parrot_integrations.client import ParrotClient, background, heartbeat
from parrot_integrations.client.background import PendingSession
from tests.doubles import ScriptedEngine
from tests.integrations.replies import Reply, Replying, failure, replying
from tests.programs import call
from tests.servers import eventually, serving

INTERVAL = 0.1
INTERVAL_OF_USE = heartbeat._INTERVAL_SECONDS


class Session:
    """Something that can be referred to weakly."""


@pytest.fixture(autouse=True)
def sending(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A thread of the test's own, which has no time to wait."""
    background.flush()
    monkeypatch.setattr(heartbeat, "_INTERVAL_SECONDS", INTERVAL)
    yield
    background.flush()


def view(session_id: str) -> Reply:
    return Reply(body=SessionView(id=session_id).model_dump_json().encode())


def opened(client: ParrotClient) -> PendingSession:
    session = client.pending_session()
    session.submit(Program())
    assert session.submitted.result(5) is not None
    return session


def signs(server: Replying, who: str | None = None) -> list[list[str]]:
    """The sessions that each sign of life named, in the order in which they came."""
    return [
        content["sessions"]
        for _, path, headers, content in server.requests
        if path == "/v1/sessions/alive" and headers.get("x-who") == who
    ]


def test_what_is_open_is_told_of_in_one_request_again_and_again() -> None:
    with replying(view("s-1"), view("s-2"), Reply(204, b"")) as server:
        with ParrotClient(server.url) as client:
            sessions = [opened(client), opened(client)]
            assert eventually(lambda: signs(server).count(["s-1", "s-2"]) >= 3)
        assert [s.submitted.result() for s in sessions] == ["s-1", "s-2"]
    openings = [content for _, path, _, content in server.requests if path == "/v1/sessions"]
    assert [opening["grace"] for opening in openings] == [15.0, 15.0]


async def test_two_signs_in_a_row_may_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the first two of a session that is opened just behind the beat for another."""
    monkeypatch.setattr(heartbeat, "_INTERVAL_SECONDS", INTERVAL_OF_USE)
    told: list[list[str]] = []
    now, due = 1000.0, []

    async def tell(opened: list[Any]) -> None:
        told.append([each.id for each in opened])

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(heartbeat, "_tell", tell)
    monkeypatch.setattr(loop, "time", lambda: now)
    monkeypatch.setattr(loop, "call_at", lambda at, *act: due.append((at, act)))
    beats, sessions = heartbeat.Heartbeat(), [Session(), Session()]
    client = ParrotClient("http://localhost")
    beats.begin(sessions[0], client, "first")
    now += 0.001
    beats.begin(sessions[1], client, "second")
    signs: list[float] = []
    while len(signs) < 3:
        at, (beat, *arguments) = due.pop()
        beat(*arguments)
        tasks = list(beats._beats)
        await asyncio.gather(*tasks)
        if "second" in told[-1]:
            signs.append(at)
    assert signs[2] - now + 1 <= heartbeat.GRACE_SECONDS


def test_backends_are_told_each_of_their_own() -> None:
    with (
        replying(view("s-1"), Reply()) as first,
        replying(view("s-2"), Reply()) as second,
        ParrotClient(first.url) as one,
        ParrotClient(second.url) as two,
    ):
        sessions = opened(one), opened(two)
        assert eventually(lambda: bool(signs(first) and signs(second)))
        assert (signs(first)[0], signs(second)[0]) == (["s-1"], ["s-2"])
        assert all(session.error is None for session in sessions)


def test_nothing_is_sent_for_what_is_over_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "_INTERVAL_SECONDS", 5.0)
    with replying(view("s-1")) as server, ParrotClient(server.url) as client:
        for _ in range(3):
            session = opened(client)
            session.close()
            assert session.closed is not None
            session.closed.result(5)
            assert background._owner().heartbeat._timer is None
    assert [path for _, path, _, _ in server.requests] == ["/v1/sessions", "/v1/sessions/s-1"] * 3


def test_there_is_no_sign_of_what_is_closed() -> None:
    with replying(view("s-1"), view("s-2"), Reply()) as server, ParrotClient(server.url) as client:
        first, second = opened(client), opened(client)
        assert eventually(lambda: ["s-1", "s-2"] in signs(server))
        first.close()
        assert first.closed is not None
        first.closed.result(5)
        told = len(signs(server))
        assert eventually(lambda: len(signs(server)) >= told + 3)
        assert signs(server)[told + 1 :][:2] == [["s-2"], ["s-2"]]
        assert second.error is None


def test_who_drops_a_session_gives_no_sign_of_it() -> None:
    with replying(view("s-1"), Reply()) as server, ParrotClient(server.url) as client:
        session = opened(client)
        assert eventually(lambda: signs(server) != [])
        del session
        gc.collect()
        assert eventually(lambda: background._owner().heartbeat._timer is None)
        assert not background._owner().heartbeat._opened


def test_one_that_fails_is_sent_once_and_the_next_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "parrot_integrations")
    with replying(view("s-1"), failure(503)) as server, ParrotClient(server.url) as client:
        session = opened(client)
        assert eventually(lambda: len(signs(server)) >= 2)
        assert eventually(lambda: "no sign of life" in caplog.text)
        assert session.error is None
    assert {record.levelname for record in caplog.records if "sign" in record.message} == {"DEBUG"}
    assert not [each for each in caplog.records if each.levelno > logging.DEBUG]


def test_one_that_is_not_answered_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "_PATIENCE_SECONDS", INTERVAL / 2)
    asked: list[float] = []
    with replying(view("s-1"), Reply()) as server, ParrotClient(server.url) as client:
        session = opened(client)

        async def stalling(*_: Any) -> None:
            asked.append(time.monotonic())
            await asyncio.sleep(60)

        monkeypatch.setattr(client, "aonce", stalling)
        assert eventually(lambda: len(asked) >= 3)
        assert eventually(lambda: len(background._owner().heartbeat._beats) <= 1)
        assert session.error is None


def _in_a_child(url: str, inherited: PendingSession, results: Any, told: Any) -> None:
    heartbeat._INTERVAL_SECONDS = INTERVAL
    client = ParrotClient(url, default_headers={"x-who": "child"})
    session = opened(client)
    results.put((session.submitted.result(), inherited.submitted.result()))
    told.wait(30)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_a_forked_child_speaks_for_itself_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "_INTERVAL_SECONDS", 60.0)  # of the parent
    with (
        replying(view("s-1"), view("s-2"), Reply()) as server,
        ParrotClient(server.url) as client,
    ):
        session = opened(client)
        fork = multiprocessing.get_context("fork")
        results, told = fork.Queue(), fork.Event()
        child = fork.Process(target=_in_a_child, args=(server.url, session, results, told))
        child.start()
        assert results.get(timeout=30) == ("s-2", None)
        assert eventually(lambda: len(signs(server, "child")) >= 2, timeout=30)
        told.set()
        child.join(30)
        assert {tuple(sign) for sign in signs(server, "child")} == {("s-2",)}
        assert signs(server) == []


# What the backend makes of them


_OPENS = """
import sys, time
from parrot_backend.wire.protocol import Program
from parrot_integrations.client import ParrotClient, background
from tests.programs import call
background.GRACE_SECONDS = 1.0
session = ParrotClient(sys.argv[1]).pending_session()
session.submit(Program(calls=[call("a", "one")]))
print(session.submitted.result(), flush=True)
time.sleep(60)
"""


def test_a_client_that_waits_in_a_tool_keeps_its_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "GRACE_SECONDS", 1.0)
    engine = ScriptedEngine()
    engine.hold("one")
    with serving(engine) as url, ParrotClient(url) as client:
        session = client.pending_session()
        session.submit(Program(calls=[call("a", "one")]))
        session_id = session.submitted.result(5)
        assert session_id is not None
        time.sleep(5)  # the grace, and the time between two looks at it
        assert engine.running == 1
        session.close()


def test_the_plan_of_a_client_that_is_killed_is_stopped() -> None:
    engine = ScriptedEngine()
    engine.hold("one")
    with serving(engine) as url:
        opens = [sys.executable, "-c", _OPENS, url]
        with subprocess.Popen(opens, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            assert client.stdout.readline()
            assert eventually(lambda: engine.running == 1)
            client.kill()
        assert eventually(lambda: engine.running == 0, timeout=10)
