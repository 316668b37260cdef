"""Session traffic: in order, in nobody's way, sent before the process ends, and forgotten."""

import asyncio
import gc
import multiprocessing
import socket
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from parrot_backend.serving.limits import Limits
from parrot_backend.wire.protocol import Program
from parrot_integrations.client import ParrotClient, active_sessions, background
from tests.doubles import ScriptedEngine
from tests.integrations.client.asking import body
from tests.integrations.replies import failure, replying
from tests.programs import call
from tests.servers import eventually, serving


def test_programs_go_in_their_order(client: ParrotClient) -> None:
    session = client.pending_session()
    for n in range(20):
        session.submit(
            Program(calls=[call(f"call-{n}", "one" if not n else f"{{call-{n - 1}.out}}")])
        )
    assert session.submitted.result(5) is not None
    session.close()
    session.submit(Program(calls=[call("late", "late")]))
    assert session.closed is not None
    view = session.closed.result(5)
    assert view is not None
    assert (view.closed, view.planned) == (True, 20)


def test_what_is_over_before_it_was_sent_is_not_sent_any_more() -> None:
    with replying(failure(503)) as server, ParrotClient(server.url) as client:
        sessions = [client.pending_session() for _ in range(100)]
        for session in sessions:
            session.submit(Program(calls=[call("a", "one")]))
            session.close()
        assert [s.closed.result(5) for s in sessions if s.closed] == [None] * 100
        assert len(server.requests) < 50


def test_who_submits_does_not_wait() -> None:
    with socket.create_server(("127.0.0.1", 0)) as stalling:
        client = ParrotClient(f"http://127.0.0.1:{stalling.getsockname()[1]}")
        begun = time.monotonic()
        session = client.pending_session()
        session.submit(Program(calls=[call("a", "one")]))
        session.close()
        assert time.monotonic() - begun < 0.2
    assert session.submitted.result(10) is None


def test_a_request_waits_for_what_was_submitted_before_it(client: ParrotClient) -> None:
    session = client.pending_session()
    active = copy_context()
    active.run(active_sessions.set, {client.key: session})
    for n in range(5):
        session.submit(Program(calls=[call(f"call-{n}", f"number {n}")]))
        assert active.run(client.chat, body(f"number {n}"))
    session.close()
    assert session.closed is not None
    view = session.closed.result(5)
    assert view is not None
    assert (view.planned, view.claimed, view.unplanned) == (5, 5, 0)


async def test_a_request_that_waits_can_be_cancelled_and_others_wait_on() -> None:
    reached, go_on = threading.Event(), threading.Event()

    with serving(ScriptedEngine()) as url, ParrotClient(url) as client:
        session = client.pending_session()
        aonce = client.aonce

        async def slow(operation: Any, seconds: float) -> Any:
            reached.set()
            await asyncio.to_thread(go_on.wait, 5)
            return await aonce(operation, seconds)

        client.aonce = slow  # type: ignore[method-assign]
        session.submit(Program(calls=[call("a", "one")]))
        token = active_sessions.set({client.key: session})
        first = asyncio.create_task(client.achat(body("one")))
        second = asyncio.create_task(client.achat(body("one")))
        active_sessions.reset(token)
        await asyncio.to_thread(reached.wait, 5)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        go_on.set()
        assert (await second)["choices"][0]["message"]["content"] == "eno"
        session_id = session.submitted.result()
        assert session_id is not None
        assert (await client.asession(session_id)).claimed == 1


def test_an_answer_that_nobody_waits_for_any_more_is_no_error(
    client: ParrotClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The loop of who was waiting is closed by then."""
    go_on = threading.Event()
    aonce = client.aonce

    async def slow(operation: Any, seconds: float) -> Any:
        await asyncio.to_thread(go_on.wait, 5)
        return await aonce(operation, seconds)

    async def wait() -> None:
        session.submit(Program(calls=[call("a", "one")]))
        active_sessions.set({client.key: session})
        await asyncio.wait_for(client.achat(body("one")), 0.1)

    client.aonce = slow  # type: ignore[method-assign]
    session = client.pending_session()
    with pytest.raises(TimeoutError):
        asyncio.run(wait())
    go_on.set()
    assert session.submitted.result(5) is not None
    session.close()
    assert session.closed is not None
    assert session.closed.result(5) is not None
    assert caplog.records == []


def test_what_fails_is_sent_once_and_the_request_goes_on_without(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with replying(failure(503)) as server, ParrotClient(server.url) as client:
        session = client.pending_session()
        session.submit(Program(calls=[call("a", "one")]))
        session.submit(Program(calls=[call("b", "two")]))
        assert session.submitted.result(5) is None
        session.close()
        assert session.closed is not None
        assert session.closed.result(5) is None
        assert [path for _, path, _, _ in server.requests] == ["/v1/sessions"]
    assert caplog.text.count("running without it") == 1


def test_what_was_submitted_can_be_claimed_when_more_is_refused() -> None:
    with (
        serving(ScriptedEngine(), limits=Limits(calls_per_session=1)) as url,
        ParrotClient(url) as client,
    ):
        session = client.pending_session()
        session.submit(Program(calls=[call("a", "one")]))
        session.submit(Program(calls=[call("b", "two")]))
        assert session.submitted.result(5) is not None
        session.close()
        assert session.closed is not None
        assert session.closed.result(5) is not None


HELD: ContextVar[Any] = ContextVar("held")


def test_nothing_is_kept_of_a_session_that_is_closed(client: ParrotClient) -> None:
    class Something:
        pass

    def run() -> weakref.ref[Something]:
        something = Something()
        HELD.set(something)
        session = client.pending_session()
        session.submit(Program(calls=[call("a", "one")]))
        assert session.submitted.result(5) is not None
        session.close()
        assert session.closed is not None
        assert session.closed.result(5) is not None
        return weakref.ref(something)

    of_context = copy_context().run(run)
    for _ in range(50):
        gc.collect()
        if of_context() is None:
            break
        time.sleep(0.02)
    assert of_context() is None, "nor of the caller's context, by connections that are kept"


def test_many_threads_have_one_that_sends(client: ParrotClient) -> None:
    def run(n: int) -> int:
        session = client.pending_session()
        session.submit(Program(calls=[call("a", f"one {n}")]))
        assert session.submitted.result(5) is not None
        session.close()
        assert session.closed is not None
        view = session.closed.result(5)
        return view.planned if view is not None else 0

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(run, range(32))) == 32
    assert sum(thread.name == "parrot-sessions" for thread in threading.enumerate()) == 1


def _in_a_child(url: str, results: Any) -> None:
    session = ParrotClient(url).pending_session()
    session.submit(Program(calls=[call("a", "one")]))
    session.submitted.result(5)
    session.close()
    closed = session.closed
    view = closed.result(5) if closed is not None else None
    results.put(view.planned if view is not None else None)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_a_forked_child_sends_by_itself(client: ParrotClient, scripted_url: str) -> None:
    session = client.pending_session()
    session.submit(Program(calls=[call("a", "one")]))
    assert session.submitted.result(5) is not None
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    child = fork.Process(target=_in_a_child, args=(scripted_url, results))
    child.start()
    assert results.get(timeout=10) == 1
    child.join(10)
    session.close()


_AT_EXIT = """
import sys
from parrot_backend.wire.protocol import Program
from parrot_integrations.client import ParrotClient
from tests.programs import call
session = ParrotClient(sys.argv[1]).pending_session()
session.submit(Program(calls=[call("a", "one")]))
if len(sys.argv) == 2:
    session.submitted.result()
session.close()
"""


def test_what_is_on_its_way_at_exit_is_sent() -> None:
    with serving(ScriptedEngine()) as url:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", _AT_EXIT, url], capture_output=True, timeout=30
        )
        assert (done.returncode, done.stderr) == (0, b"")
        with ParrotClient(url) as client:
            (view,) = client.sessions()
            assert (view.closed, view.planned) == (True, 1)


def _seconds(url: str) -> float:
    begun = time.monotonic()
    script = [sys.executable, "-c", _AT_EXIT, url, "at once"]
    assert subprocess.run(script, capture_output=True, timeout=30).returncode == 0
    return time.monotonic() - begun


def test_an_exit_does_not_wait_for_a_backend_that_stalls(scripted_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stalling = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert _seconds(stalling) - _seconds(scripted_url) < 3


def test_a_session_whose_calls_were_claimed_is_closed_by_the_next_opening() -> None:
    with serving(ScriptedEngine()) as url, ParrotClient(url) as client:
        ids = []
        for content in ("one", "two"):
            session = client.pending_session()
            session.submit(Program(calls=[call("call-1", content)]))
            token = active_sessions.set({client.key: session})
            client.chat(body(content))
            active_sessions.reset(token)
            session.close()
            ids.append(session.submitted.result())
        views = {view.id: view for view in client.sessions()}
        assert [views[session_id].closed for session_id in ids] == [True, False]
        assert [views[session_id].claimed for session_id in ids] == [1, 1]
        assert session.closed is not None
        last = session.closed.result(5)
        assert last is not None
        assert last.closed, "when somebody asks, or after a while"


def test_a_session_with_something_to_cancel_is_closed_at_once() -> None:
    engine = ScriptedEngine()
    engine.hold("one")
    with serving(engine) as url, ParrotClient(url) as client:
        session = client.pending_session()
        session.submit(Program(calls=[call("call-1", "one")]))
        assert session.submitted.result(5)
        session.close()
        assert eventually(lambda: engine.running == 0, 0.25)


def test_an_opening_that_timed_out_leaves_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is opened all the same, when the backend comes to it; the client can name and close it."""
    monkeypatch.setattr(background, "_SECONDS", 0.3)
    engine = ScriptedEngine()
    monkeypatch.setattr(engine, "script", lambda prompt: time.sleep(0.8) or prompt * 50)
    with serving(engine) as url, ParrotClient(url) as client:
        busy = threading.Thread(target=client.chat, args=(body("slow"),))
        busy.start()
        assert eventually(lambda: engine.started != [])
        session = client.pending_session()
        session.submit(Program(calls=[call("call-1", "one")]))
        assert session.submitted.result(10) is None
        busy.join()
        monkeypatch.setattr(background, "_SECONDS", 5.0)
        assert eventually(lambda: all(view.closed for view in client.sessions()))


def test_what_is_kept_of_a_backend_goes_with_its_last_session(client: ParrotClient) -> None:
    session = client.pending_session()
    session.submit(Program())
    session.close()
    assert session.closed is not None
    session.closed.result(5)
    assert background._owner().over == {}
