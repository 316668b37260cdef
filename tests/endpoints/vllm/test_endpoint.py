"""A vLLM of ours as a process: started, watched over, ended, with all that belongs to it."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from parrot_backend.endpoints.base import Job
from parrot_backend.endpoints.process import supervisor
from parrot_backend.endpoints.process.backoff import Backoff
from parrot_backend.endpoints.vllm import starting
from parrot_backend.wire.errors import EndpointLostError, EngineError, UnavailableError
from parrot_backend.wire.text_protocol import PromptRequest
from tests.endpoints.vllm.doubles import command, running
from tests.processes import alive
from tests.servers import eventually as eventually_seen

JOB = Job(PromptRequest(prompt="x"))
PROMPT = PromptRequest(prompt="beginning")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "Backoff", lambda: Backoff(0.01, 0.02))


async def eventually(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.02)


async def test_it_is_ready_when_vllm_answers_and_ends_with_it(tmp_path):
    async with running(tmp_path) as (endpoint, (upstream,)):
        assert endpoint.state == "ready"
        assert endpoint.card.model.name == "org/model"
        assert endpoint.stats().running == 1
        assert await endpoint.tokenize(PROMPT) == [1]
        pid = endpoint.pid
        assert pid is not None
        assert alive(pid)
        assert "Secret(...)" in repr(upstream.started)
    assert endpoint.state == "dead"
    assert upstream.closed
    assert not alive(pid)
    with pytest.raises(UnavailableError, match="shutting down"):
        await endpoint.tokenize(PROMPT)


async def test_one_that_is_killed_is_followed_by_another_and_jobs_are_told_why(tmp_path):
    async with running(tmp_path) as (endpoint, upstreams):
        states: list[str] = []
        endpoint.watch(lambda: states.append(endpoint.state))
        first = endpoint.pid
        deltas = endpoint.generate(JOB)
        assert (await anext(deltas)).text == "a"
        os.kill(first, signal.SIGKILL)
        with pytest.raises(EndpointLostError, match="vLLM was killed by SIGKILL"):
            await anext(deltas)
        assert states == ["dead"]  # before the job: there is no place for it here
        await eventually(lambda: endpoint.state == "ready")
        assert states == ["dead", "starting", "ready"]
        assert endpoint.pid != first
        assert len(upstreams) == 2
        assert upstreams[0].closed
        assert upstreams[0].started.key.reveal() != upstreams[1].started.key.reveal()


async def test_hints_are_told_to_the_next(tmp_path):
    async with running(tmp_path) as (endpoint, upstreams):
        endpoint.expect([PROMPT], "kept")
        endpoint.expect([PROMPT], "forgotten")()
        assert upstreams[0].hints == ["kept"]
        os.kill(endpoint.pid, signal.SIGKILL)
        await eventually(lambda: len(upstreams) == 2 and endpoint.state == "ready")
        assert upstreams[1].hints == ["kept"]


async def test_what_vllm_has_started_ends_with_it(tmp_path):
    async with running(tmp_path, "--helper", str(tmp_path / "pid")) as (endpoint, _):
        helper = int((tmp_path / "pid").read_text())
        os.kill(endpoint.pid, signal.SIGKILL)
        await eventually(lambda: not alive(helper))


async def test_a_start_that_fails_tells_the_error_that_vllm_told(tmp_path):
    with pytest.raises(EngineError) as told:
        async with running(tmp_path, "--dies-with", "ValueError: no room for keys"):
            pass
    assert told.value.message == (
        "vLLM (model) did not start: vLLM ended with exit code 1: ValueError: no room for keys"
    )


async def test_a_start_has_its_time_and_no_more(tmp_path):
    with pytest.raises(EngineError, match="did not answer within 1 s; it said last: key"):
        async with running(tmp_path, "--never", start_seconds=1):
            pass


async def test_a_long_start_tells_how_it_goes(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(starting, "_TELL_SECONDS", 0.3)
    caplog.set_level(logging.INFO, "parrot_backend")
    with pytest.raises(EngineError):
        async with running(tmp_path, "--never", start_seconds=2):
            pass
    assert any("vLLM (model) starts since" in line and "key" in line for line in caplog.messages)


async def test_one_that_answers_nobody_is_killed_and_followed_by_another(tmp_path):
    async with running(tmp_path, hang_seconds=0.5) as (endpoint, upstreams):
        upstreams[0].become("dead")
        assert endpoint.state == "dead"
        await eventually(lambda: endpoint.state == "ready")
        assert len(upstreams) == 2


async def test_one_that_answers_again_in_time_goes_on(tmp_path):
    async with running(tmp_path, hang_seconds=2) as (endpoint, upstreams):
        pid = endpoint.pid
        for _ in range(4):
            upstreams[0].become("dead")
            await asyncio.sleep(0.8)
            upstreams[0].become("ready")
            await asyncio.sleep(0.3)
        assert endpoint.pid == pid


async def test_after_some_starts_that_fail_it_has_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "MAX_FAILED_STARTS", 2)
    async with running(tmp_path, "--dies-after-first", str(tmp_path / "mark")) as (endpoint, _):
        os.kill(endpoint.pid, signal.SIGKILL)
        await eventually(lambda: endpoint.state == "failed")
        with pytest.raises(EndpointLostError, match="OSError: the second time"):
            await endpoint.tokenize(PROMPT)


async def test_drained_it_takes_no_more(tmp_path):
    async with running(tmp_path) as (endpoint, upstreams):
        endpoint.drain()
        assert endpoint.state == "draining"
        assert upstreams[0].state == "draining"
        with pytest.raises(UnavailableError):
            await endpoint.tokenize(PROMPT)


def test_all_of_it_ends_with_a_server_that_is_killed(tmp_path: Path):
    code = f"""
import asyncio, sys
from pathlib import Path
from tests.endpoints.vllm.doubles import running

async def main():
    async with running(Path({str(tmp_path)!r}), "--helper", {str(tmp_path / "pid")!r}) as (e, _):
        print(e.pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""
    command(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as server:
        pid = int(server.stdout.readline())
        helper = int((tmp_path / "pid").read_text())
        assert alive(pid)
        assert alive(helper)
        server.kill()
    assert eventually_seen(lambda: not alive(pid) and not alive(helper))
