"""A child that dies, hangs or can't be started: who waits is told, and another follows."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

from parrot_backend.endpoints.process import connection, supervisor
from parrot_backend.endpoints.process.backoff import Backoff
from parrot_backend.endpoints.process.endpoint import ProcessEndpoint
from parrot_backend.engines.base import Delta
from parrot_backend.wire.errors import ContextLengthError, EndpointLostError, EngineError
from tests.endpoints.process.children import (
    PATIENCE,
    answer_of,
    deltas_of,
    eventually,
    job,
    running,
    states_of,
)
from tests.endpoints.process.engines import recipe


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children are started again with next to no delay."""
    monkeypatch.setattr(supervisor, "Backoff", lambda: Backoff(0.01, 0.02))


async def lost(deltas: AsyncGenerator[Delta, None]) -> str:
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(EndpointLostError) as raised:
            async for _ in deltas:
                pass
    return raised.value.message


def kill(endpoint: ProcessEndpoint, number: signal.Signals = signal.SIGKILL) -> None:
    assert endpoint.pid is not None
    os.kill(endpoint.pid, number)


async def test_a_killed_child_is_told_to_all_that_it_ran_and_followed_by_another() -> None:
    async with running() as endpoint:
        states, first = states_of(endpoint), endpoint.pid
        held = [endpoint.generate(job(f"HOLD {n}")) for n in range(3)]
        for deltas in held:
            await anext(deltas)
        kill(endpoint)
        told = await asyncio.gather(*map(lost, held))
        assert "killed by SIGKILL" in told[0]
        assert "out of memory" in told[0]
        assert states[0] == "dead"
        await eventually(lambda: endpoint.state == "ready")
        assert states == ["dead", "starting", "ready"]
        assert endpoint.pid != first
        assert endpoint.stats().running == 0
        assert await answer_of(endpoint, "again") == "niaga"


async def test_while_none_is_ready_jobs_are_lost_at_once() -> None:
    async with running() as endpoint:
        kill(endpoint)
        told: list[str] = []

        def ask() -> None:
            if endpoint.state == "starting":
                told.append("asked")

        endpoint.watch(ask)
        await eventually(lambda: endpoint.state == "dead")
        with pytest.raises(EndpointLostError, match=r"killed by SIGKILL.*; the engine is dead"):
            await deltas_of(endpoint, job("early"))
        with pytest.raises(EndpointLostError):
            await endpoint.tokenize(job("early").request)
        await eventually(lambda: endpoint.state == "ready")
        assert told == ["asked"]


async def test_a_watcher_that_fails_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    async with running() as endpoint:
        endpoint.watch(fail)
        kill(endpoint)
        await eventually(lambda: endpoint.state == "dead")
        await eventually(lambda: endpoint.state == "ready")


async def test_an_exit_says_its_code() -> None:
    async with running() as endpoint:
        assert "ended with exit code 3" in await lost(endpoint.generate(job("EXIT")))


@pytest.mark.parametrize(
    ("prompt", "said"), [("HOLD", "made no step for 1 s"), ("BLOCK", "was silent for 1 s")]
)
async def test_a_child_that_hangs_is_killed(prompt: str, said: str) -> None:
    async with running(hang_seconds=1) as endpoint:
        first = endpoint.pid
        assert said in await lost(endpoint.generate(job(prompt)))
        await eventually(lambda: endpoint.state == "ready")
        assert endpoint.pid != first
        assert await answer_of(endpoint, "again") == "niaga"


async def test_a_child_that_is_stopped_hangs() -> None:
    async with running(hang_seconds=1) as endpoint:
        kill(endpoint, signal.SIGSTOP)
        assert "was silent for 1 s" in await lost(endpoint.generate(job("good")))


async def test_a_child_with_nothing_to_do_does_not_hang() -> None:
    async with running(hang_seconds=0.5) as endpoint:
        states = states_of(endpoint)
        await asyncio.sleep(2)
        assert states == []


async def test_hints_are_told_again_and_those_called_back_are_not() -> None:
    async with running() as endpoint:
        keep = endpoint.expect([job("abc").request], "one")
        endpoint.expect([job("xyz").request], "one")()
        kill(endpoint)
        await eventually(lambda: endpoint.state == "dead")
        endpoint.expect([job("def").request], "one")
        await eventually(lambda: endpoint.state == "ready")
        await eventually(lambda: endpoint.stats().prefix_tree_nodes == 2)
        keep()
        await eventually(lambda: endpoint.stats().prefix_tree_nodes == 1)


async def test_ctrl_c_in_the_terminal_is_not_the_child_s() -> None:
    async with running() as endpoint:
        first = endpoint.pid
        kill(endpoint, signal.SIGINT)
        assert await answer_of(endpoint, "good") == "doog"
        assert endpoint.pid == first


@pytest.mark.parametrize(
    ("factory", "error", "said"),
    [
        ("no_model", ContextLengthError, "^there is no model: choose another$"),
        ("no_file", EngineError, "No such file or directory: '/no/such/file'$"),
        ("killed_at_start", EngineError, "ended with exit code 4$"),
        ("no_such_factory", EngineError, "ended with exit code 1$"),
    ],
)
async def test_a_first_start_that_fails_raises_the_child_s_own_error(
    factory: str, error: type[EngineError], said: str
) -> None:
    with pytest.raises(error, match=said):
        async with running(factory):
            pass


async def test_after_some_starts_that_fail_it_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "MAX_FAILED_STARTS", 2)
    async with running("works_once", mark=str(tmp_path / "mark")) as endpoint:
        states = states_of(endpoint)
        kill(endpoint)
        await eventually(lambda: len(states) >= 6)
        await asyncio.sleep(0.1)
        assert states == ["dead", "starting", "dead", "starting", "dead", "failed"]
        with pytest.raises(EndpointLostError, match=r"can't be started again.*mark.*has failed$"):
            await deltas_of(endpoint, job("late"))


@pytest.mark.parametrize("factory", ["loads_for_ever", "holds_the_interpreter"])
async def test_a_child_that_hangs_while_it_loads_is_killed(
    factory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LOADING_SECONDS", 3.0)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(EngineError, match="hung while it loaded: it got nowhere for 3 s"):
            async with running(factory, hang_seconds=1):
                pass


async def test_a_successor_that_hangs_while_it_loads_is_killed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LOADING_SECONDS", 3.0)
    monkeypatch.setattr(supervisor, "MAX_FAILED_STARTS", 1)
    async with running("hangs_again", hang_seconds=1, mark=str(tmp_path / "mark")) as endpoint:
        kill(endpoint)
        await eventually(lambda: endpoint.state == "failed")
        with pytest.raises(EndpointLostError, match=r"can't be started again: .* hung while it"):
            await deltas_of(endpoint, job("late"))


async def test_a_child_may_load_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LOADING_SECONDS", 5.0)
    async with running("loads_slowly", hang_seconds=1, seconds=7) as endpoint:
        assert await answer_of(endpoint, "good") == "doog"


async def test_draining_wants_no_other_child() -> None:
    async with running() as endpoint:
        states = states_of(endpoint)
        async with aclosing(endpoint.generate(job("HOLD"))) as deltas:
            await anext(deltas)
            endpoint.drain()
            kill(endpoint)
            await lost(deltas)
        await asyncio.sleep(0.1)
        assert states == ["draining", "dead"]


async def test_closing_while_it_starts_leaves_nothing_behind() -> None:
    endpoint = ProcessEndpoint(recipe("loads_for_ever"))
    starting = asyncio.create_task(endpoint.start())
    await asyncio.sleep(0.5)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await endpoint.aclose()
    assert endpoint.state == "dead"
