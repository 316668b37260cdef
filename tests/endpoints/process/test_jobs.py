"""What a child sends, frame by frame."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from parrot_backend.endpoints.local import LocalEndpoint
from parrot_backend.endpoints.process import frames, jobs
from parrot_backend.endpoints.process.jobs import Jobs
from parrot_backend.engines.base import Delta, GenerationRequest
from parrot_backend.wire.errors import EngineError
from tests.doubles import ScriptedEngine
from tests.endpoints.process.children import eventually, job

JOBS = 32
STEPS = 5


class SteppingEngine(ScriptedEngine):
    """Each `step` gives every job a token at once; then they fail."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[asyncio.Future[None]] = []

    def step(self) -> None:
        waiting, self.waiting = self.waiting, []
        for future in waiting:
            future.set_result(None)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        for token in range(STEPS):
            self.waiting.append(asyncio.get_running_loop().create_future())
            await self.waiting[-1]
            yield Delta("x", (token,), 0)
        raise EngineError("no more steps")


class Reader:
    """Takes what the child writes, as slowly as it is told to."""

    def __init__(self) -> None:
        self.frames: list[frames.Progress] = []
        self.reads = asyncio.Event()
        self.reads.set()

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        stream = asyncio.StreamReader()
        stream.feed_data(data)
        reading = frames.read(stream)
        with pytest.raises(StopIteration) as end:
            reading.send(None)
        self.frames.append(cast(frames.Progress, end.value.value))

    async def drain(self) -> None:
        await self.reads.wait()

    @property
    def deltas(self) -> list[tuple[int, Delta]]:
        return [delta for frame in self.frames for delta in frame.deltas]


@asynccontextmanager
async def sending(
    engine: ScriptedEngine, heartbeat: float = 60
) -> AsyncIterator[tuple[Jobs, Reader]]:
    running, reader = Jobs(LocalEndpoint(engine), heartbeat), Reader()
    task = asyncio.create_task(running.send(cast(asyncio.StreamWriter, reader)))
    try:
        yield running, reader
    finally:
        task.cancel()
        await running.aclose()


async def all_wait(engine: SteppingEngine) -> None:
    await eventually(lambda: len(engine.waiting) == JOBS)


async def test_all_deltas_of_a_step_go_out_in_one_frame() -> None:
    engine = SteppingEngine()
    async with sending(engine) as (running, reader):
        for number in range(JOBS):
            running.take(frames.Generate(number, job("x")))
        for step in range(STEPS):
            await all_wait(engine)
            engine.step()
            await eventually(lambda: len(reader.deltas) == JOBS * (step + 1))  # noqa: B023
        with_deltas = [frame.deltas for frame in reader.frames if frame.deltas]
        assert [len(deltas) for deltas in with_deltas] == [JOBS] * STEPS
        assert [{delta.tokens for _, delta in deltas} for deltas in with_deltas] == [
            {(step,)} for step in range(STEPS)
        ]


async def test_what_a_slow_reader_left_waiting_comes_in_pieces_and_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "MAX_DELTAS", 10)
    engine = SteppingEngine()
    async with sending(engine) as (running, reader):
        reader.reads.clear()
        for number in range(JOBS):
            running.take(frames.Generate(number, job("x")))
        for _ in range(STEPS):
            await all_wait(engine)
            engine.step()
        await asyncio.sleep(0.05)
        assert len(reader.deltas) <= 10
        reader.reads.set()
        await eventually(lambda: any(frame.failed for frame in reader.frames))
        assert max(len(frame.deltas) for frame in reader.frames) == 10
        failed_at = next(n for n, frame in enumerate(reader.frames) if frame.failed)
        assert not any(frame.deltas for frame in reader.frames[failed_at + 1 :])
        for number in range(JOBS):
            tokens = [delta.tokens for of, delta in reader.deltas if of == number]
            assert tokens == [(step,) for step in range(STEPS)]


async def test_a_child_that_has_nothing_to_say_says_that_it_lives() -> None:
    async with sending(ScriptedEngine(), heartbeat=0.01) as (_, reader):
        await eventually(lambda: len(reader.frames) >= 3)
        assert not reader.deltas


async def test_a_load_that_changes_is_told_though_no_job_says_anything() -> None:
    engine = ScriptedEngine()
    async with sending(engine) as (_, reader):
        await eventually(lambda: len(reader.frames) == 1)
        engine.running = 7
        await eventually(lambda: len(reader.frames) == 2)
        assert reader.frames[-1].stats.running == 7
        await asyncio.sleep(0.3)
        assert len(reader.frames) == 2


async def test_what_is_cancelled_or_forgotten_too_late_changes_nothing() -> None:
    async with sending(ScriptedEngine()) as (running, reader):
        running.take(frames.Cancel(5))
        running.take(frames.Forget(5))
        running.take(frames.Generate(6, job("x")))
        running.take(frames.Cancel(6))
        await asyncio.sleep(0.05)
        assert not reader.deltas
