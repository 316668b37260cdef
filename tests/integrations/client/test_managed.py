import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from parrot_integrations.client import ParrotClient, managed
from parrot_integrations.client.errors import BackendConnectionError, BackendStartError
from tests.servers import eventually

STAND_IN = 'import time; print(\'{"base_url": "http://127.0.0.1:9"}\', flush=True); time.sleep(60)'


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "Z"


def family(backend: int) -> set[int]:
    """The living among the backend and all that it has started, by their parents and their session."""
    parents, found = {}, set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            state, parent, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            if state != "Z":
                pid = int(stat.parent.name)
                parents[pid] = int(parent)
                found |= {pid} if int(session) == backend or pid == backend else set()
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


@pytest.fixture(autouse=True)
def own_logs(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield tmp_path
    managed.stop_all()


@pytest.fixture
def program(monkeypatch):
    """What is run in place of the backend: cheap, and as slow or broken as a test wants it."""

    def run(code: str) -> None:
        monkeypatch.setattr(managed, "_command", lambda _: [sys.executable, "-c", code])

    run(STAND_IN)
    return run


# With a stand-in for the backend


def test_many_first_uses_start_one(program):
    with ThreadPoolExecutor(8) as threads:
        processes = [threads.submit(managed.backend) for _ in range(8)]
        pids = {started.result().process.pid for started in processes}
    assert len(pids) == 1
    assert managed.base_url() == "http://127.0.0.1:9"


async def test_async_first_uses_start_one_and_leave_the_loop_free(program):
    program("import time; time.sleep(0.5);" + STAND_IN)
    waiting = [asyncio.create_task(managed.abase_url()) for _ in range(3)]
    await asyncio.sleep(0.1)
    waiting[0].cancel()
    assert await asyncio.gather(*waiting[1:]) == ["http://127.0.0.1:9"] * 2
    assert len(managed._backends) == 1


def test_each_model_has_its_own(program):
    one, two = managed.backend("a"), managed.backend("b")
    assert one.process.pid != two.process.pid
    managed.stop_all()
    assert one.process.poll() is not None
    assert two.process.poll() is not None


def test_one_that_died_is_started_again(program):
    managed.base_url()
    first = managed.backend().process
    first.kill()
    first.wait()
    assert managed.base_url()
    assert managed.backend().process.pid != first.pid


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_starts_its_own_and_ends_only_that(program):
    mine = managed.backend().process
    fork = multiprocessing.get_context("fork")
    pids = fork.Queue()

    def in_child() -> None:
        pids.put(managed.backend().process.pid)
        managed.stop_all()

    with managed._lock:  # as if another thread were just starting one
        child = fork.Process(target=in_child)
        child.start()
    theirs = pids.get(timeout=30)
    child.join()
    assert theirs != mine.pid
    assert eventually(lambda: is_gone(theirs))
    assert mine.poll() is None
    pids.close()
    pids.join_thread()


def test_one_that_ignores_the_wish_to_end_is_killed(program, monkeypatch):
    monkeypatch.setattr(managed, "_STOP_TIMEOUT", 0.2)
    program("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + STAND_IN)
    managed.base_url()
    process = managed.backend().process
    managed.stop_all()
    assert process.returncode == -signal.SIGKILL


def test_what_one_that_is_killed_has_started_is_killed_with_it(program, monkeypatch):
    monkeypatch.setattr(managed, "_STOP_TIMEOUT", 0.2)
    sleeping = "import subprocess; subprocess.Popen(['sleep', '60']);"
    program("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + sleeping + STAND_IN)
    managed.base_url()
    pids = family(managed.backend().process.pid)
    assert len(pids) == 2
    managed.stop_all()
    assert eventually(lambda: all(map(is_gone, pids)))


def test_a_start_that_fails_is_seen_where_something_that_it_started_goes_on(program, monkeypatch):
    """That has the same output, which therefore does not end."""
    monkeypatch.setenv("PARROT_START_TIMEOUT", "30")
    program("import subprocess, sys; subprocess.Popen(['sleep', '5']); sys.exit('no such thing')")
    with pytest.raises(BackendStartError, match="ended with exit code 1"):
        managed.base_url()


def test_a_start_that_fails_says_why_and_is_tried_again_later(program, own_logs):
    program("import sys; sys.exit('parrot: error: no such thing')")
    client = ParrotClient()
    with pytest.raises(BackendStartError, match="ended with exit code 1") as raised:
        client.models()
    assert "parrot: error: no such thing" in raised.value.message
    assert str(own_logs) in raised.value.message
    program(STAND_IN)
    with pytest.raises(BackendConnectionError, match="Cannot reach"), client:
        client.models()


def test_a_start_is_told(program, own_logs, caplog):
    with caplog.at_level("INFO", "parrot_integrations"):
        backend = managed.backend("some-model")
    assert caplog.messages == [f"starting a backend for some-model, log: {backend.log}"]


def test_a_missing_package_is_named(program, monkeypatch):
    monkeypatch.setattr(managed, "_BACKEND_PACKAGES", ("torch", "not_a_package"))
    program("import not_a_package")
    with pytest.raises(BackendStartError, match="Not installed: not_a_package") as raised:
        managed.base_url()
    assert "pip install 'parrot-integrations[backend]'" in raised.value.message
    assert "ModuleNotFoundError" in raised.value.message


def test_a_start_that_takes_too_long(program, monkeypatch):
    monkeypatch.setenv("PARROT_START_TIMEOUT", "0.3")
    program("import time; time.sleep(60)")
    process = managed.backend().process
    with pytest.raises(BackendStartError, match=r"not ready after 0\.3 s.*PARROT_START_TIMEOUT"):
        managed.base_url()
    assert process.poll() is not None


def test_a_line_that_is_no_address(program):
    program("print('hello')")
    with pytest.raises(BackendStartError, match=r"printed b'hello.*in place of its address"):
        managed.base_url()


def test_old_logs_are_removed(program, own_logs, monkeypatch):
    monkeypatch.setattr(managed, "_KEPT_LOGS", 2)
    for model in "abcd":
        managed.backend(model)
    assert len(list(own_logs.rglob("backend-*.log"))) == 2


# With the real backend


def start(script: str, model_path: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PARROT_MODEL": model_path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.model
def test_a_model_without_an_address_has_a_backend_while_it_lives(model_path):
    script = """
        import threading, time
        from parrot_integrations.client import managed
        from parrot_integrations.langchain import ChatParrot

        llm = ChatParrot(max_tokens=4, temperature=0)
        pids = []

        def ask():
            assert llm.invoke("Say hello.").content
            pids.append(managed.backend().process.pid)

        threads = [threading.Thread(target=ask) for _ in range(2)]
        [thread.start() for thread in threads], [thread.join() for thread in threads]
        time.sleep(0.5)
        first = managed.backend().process
        # Linux can tie a child to the thread that started it; ours must outlive that thread.
        assert pids == [first.pid] * 2, pids
        first.kill(), first.wait()
        assert llm.invoke("Say hello.").content
        print(first.pid, managed.backend().process.pid)
    """
    with start(script, model_path) as process:
        output, _ = process.communicate()
    assert process.returncode == 0
    first, second = map(int, output.split())
    assert first != second
    assert is_gone(first)
    assert is_gone(second)


ENDS = {
    "the application ends": lambda application, backend: application.stdin.close(),
    "the application is killed": lambda application, backend: application.kill(),
    "the backend is killed": lambda application, backend: os.kill(backend, signal.SIGKILL),
}


@pytest.mark.model
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_nothing_is_left_of_the_backend(end, model_path):
    script = """
        import sys
        from parrot_integrations.client import managed
        from parrot_integrations.langchain import ChatParrot

        ChatParrot(max_tokens=2).invoke("Say hello.")
        print(managed.backend().process.pid, flush=True)
        sys.stdin.read()
    """
    with start(script, model_path) as application:
        backend = int(application.stdout.readline())
        pids = family(backend)
        assert backend in pids
        end(application, backend)
        assert eventually(lambda: all(map(is_gone, pids)) and not family(backend), timeout=10)
        application.kill()


def test_an_unknown_model_is_told_as_the_backend_tells_it():
    with pytest.raises(BackendStartError, match="no model 'no-such-model'"):
        managed.base_url("no-such-model")
