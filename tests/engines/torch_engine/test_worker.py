"""The engine's thread: what fails in it fails whom it concerns, and its end is no silence."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from parrot_backend.endpoints.local import LocalEndpoint
from parrot_backend.engines.base import GenerationRequest, Sampling
from parrot_backend.engines.torch_engine import TorchEngine
from parrot_backend.engines.torch_engine.load.loaded import LoadedModel
from parrot_backend.engines.torch_engine.schedule.stepper import Stepper
from parrot_backend.wire.errors import EndpointLostError, EngineError


@pytest.fixture
async def engine(tiny: LoadedModel) -> AsyncIterator[TorchEngine]:
    engine = TorchEngine.start(tiny, "tiny", kv_memory=2**21)
    yield engine
    await engine.aclose()


async def answer(engine: TorchEngine, prompt: list[int], count: int = 4) -> list[int]:
    request = GenerationRequest(prompt, Sampling(temperature=0, max_tokens=count))
    return [token async for delta in engine.generate(request) for token in delta.tokens]


async def test_a_sequence_that_cannot_be_added_fails_alone(
    engine: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = Stepper.add

    def broken(stepper: Stepper, sequence: Any) -> None:
        if sequence.tokens[0] == 9:
            raise RuntimeError("no more memory")
        add(stepper, sequence)

    expected = await answer(engine, [5, 6, 7])
    monkeypatch.setattr(Stepper, "add", broken)
    bad, good = await asyncio.gather(
        answer(engine, [9, 6, 7]), answer(engine, [5, 6, 7]), return_exceptions=True
    )
    assert isinstance(bad, EngineError)
    assert "no more memory" in str(bad)
    assert good == expected
    assert engine.dead is None


async def test_a_cancellation_that_fails_ends_its_sequence_and_no_other(
    engine: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = await answer(engine, [5, 6, 7], 30)
    beside = asyncio.create_task(answer(engine, [5, 6, 7], 30))
    leaving = engine.generate(GenerationRequest([8] * 20))
    await anext(leaving)
    cancel, failures = Stepper.cancel, [RuntimeError("not now")]

    def broken(stepper: Stepper, sequence: Any) -> None:
        if failures:
            raise failures.pop()
        cancel(stepper, sequence)

    monkeypatch.setattr(Stepper, "cancel", broken)
    await leaving.aclose()
    assert await beside == expected
    assert not failures
    assert engine.dead is None
    assert engine.stats().running == 0


async def test_a_hint_that_fails_concerns_nobody(
    engine: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine._worker._stepper.memory, "expect", lambda *_: 1 / 0)
    forget = engine.expect([5, 6, 7])
    monkeypatch.undo()
    forget()
    assert len(await answer(engine, [5, 6, 7])) == 4
    assert engine.dead is None


async def test_the_end_of_the_thread_is_told_to_all_who_wait_and_who_come(
    engine: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = LocalEndpoint(engine)
    running = engine.generate(GenerationRequest([5, 6, 7]))
    await anext(running)
    assert endpoint.state == "ready"

    def ended(stepper: Stepper) -> Any:
        raise SystemExit

    monkeypatch.setattr(Stepper, "step", ended)
    with pytest.raises(EndpointLostError, match="thread has ended: SystemExit"):
        [delta async for delta in running]
    assert engine.dead is not None
    assert "SystemExit" in engine.dead
    assert endpoint.state == "dead"
    assert (engine.stats().running, engine.stats().waiting) == (0, 0)
    with pytest.raises(EndpointLostError):
        await answer(engine, [5])
