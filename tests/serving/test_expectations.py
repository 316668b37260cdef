"""What waiting calls begin with is expected by the engine until they have ended, and no longer."""

import asyncio
from collections.abc import Callable

import pytest
import torch

from parrot_backend.endpoints.local import LocalEndpoint
from parrot_backend.engines.base import ModelCard
from parrot_backend.engines.torch_engine import TorchEngine
from parrot_backend.engines.torch_engine.forward.forward_pass import StepModel
from parrot_backend.engines.torch_engine.load.loader import load_model
from parrot_backend.engines.torch_engine.memory.kv_cache import KVCache
from parrot_backend.engines.torch_engine.memory.kv_memory import KVMemory
from parrot_backend.engines.torch_engine.schedule.stepper import Stepper
from parrot_backend.engines.torch_engine.worker import Worker
from parrot_backend.serving.core import ServingCore
from parrot_backend.serving.dispatch.fleet import Fleet, Member
from parrot_backend.serving.limits import Limits
from parrot_backend.serving.sessions.session import Session
from parrot_backend.wire.errors import DependencyError
from parrot_backend.wire.protocol import Program
from tests.doubles import ScriptedEngine
from tests.programs import call, join


async def becomes(condition: Callable[[], bool]) -> bool:
    for _ in range(500):
        if condition():
            return True
        await asyncio.sleep(0.01)
    return False


CHAIN = Program(
    variables={"one": "abc"},
    transforms=[join("both", "+", "{one}", "{first.out}")],
    calls=[call("first", "1:{one}"), call("second", "sum of {one}, {both}")],
)


async def test_a_waiting_call_is_expected_until_it_is_done(
    session: Session, engine: ScriptedEngine
) -> None:
    """With the inputs that are there, and not the call that starts at once."""
    first, second = engine.hold("1:abc"), engine.hold("sum of abc, abc+cba:1")
    await session.submit(CHAIN)
    assert await becomes(lambda: engine.expected == ["sum of abc, "])
    first.set()
    assert await becomes(lambda: len(engine.started) == 2)
    assert engine.expected == ["sum of abc, "], "while it runs its prefix may still be evicted"
    second.set()
    await session.read_variable("second.out", 5)
    assert engine.expected == []


async def test_each_of_several_calls_is_expected(session: Session, engine: ScriptedEngine) -> None:
    first, last = engine.hold("abc"), engine.hold("and cba again")
    await session.submit(
        Program(
            calls=[
                call("a", "abc"),
                call("b", "and {a.out}"),
                call("c", "and {a.out} again"),
                call("d", "{a.out} is not known"),
            ]
        )
    )
    assert await becomes(lambda: engine.expected == ["and "]), "what begins alike is expected once"
    first.set()
    await session.read_variable("b.out", 5)
    await session.read_variable("d.out", 5)
    assert engine.expected == ["and "]
    last.set()
    await session.read_variable("c.out", 5)
    assert engine.expected == []


async def test_a_call_without_input_that_is_missing_is_not_expected(
    session: Session, engine: ScriptedEngine
) -> None:
    engine.hold("1:abc")
    await session.submit(Program(variables={"one": "abc"}, calls=[call("a", "1:{one}")]))
    await asyncio.sleep(0.05)
    assert engine.running == 1
    assert engine.expected == []


async def test_a_call_that_waits_for_a_client_s_input_is_expected(
    session: Session, engine: ScriptedEngine
) -> None:
    await session.submit(Program(variables={"one": None}, calls=[call("a", "1:{one}")]))
    assert await becomes(lambda: engine.expected == ["1:"])
    session.set_variable("one", "abc")
    assert await session.read_variable("a.out", 5) == "cba:1"
    assert engine.expected == []


async def test_a_call_that_fails_is_not_expected_any_more(
    session: Session, engine: ScriptedEngine
) -> None:
    first = engine.hold("ok")
    await session.submit(
        Program(
            variables={"late": None},
            calls=[
                call("ok", "ok"),
                call("bad", "FAIL {ok.out}"),
                call("after", "after {bad.out} {late}"),
            ],
        )
    )
    assert await becomes(lambda: sorted(engine.expected) == ["FAIL ", "after "])
    first.set()
    with pytest.raises(DependencyError):
        await session.read_variable("after.out", 5)
    assert engine.expected == []


async def test_calls_of_a_closed_session_are_not_expected_any_more(
    core: ServingCore, session: Session, engine: ScriptedEngine
) -> None:
    engine.hold("1:abc")
    await session.submit(CHAIN)
    assert await becomes(lambda: engine.expected == ["sum of abc, "])
    core.tenancy().close(session.id)
    assert engine.expected == []


async def test_calls_of_a_session_that_is_closed_at_once_are_never_expected(
    core: ServingCore, session: Session, engine: ScriptedEngine
) -> None:
    engine.hold("1:abc")
    await session.submit(CHAIN)
    core.tenancy().close(session.id)
    await asyncio.sleep(0.05)
    assert engine.expected == []


async def test_a_prompt_is_expected_as_far_as_it_is_known(
    session: Session, engine: ScriptedEngine
) -> None:
    """Its parts land one after the other, and each makes more of it known."""
    first, second = engine.hold("1"), engine.hold("2")
    await session.submit(
        Program(calls=[call("a", "1"), call("b", "2"), call("sum", "Sum of {a.out}, {b.out}!")])
    )
    assert await becomes(lambda: engine.expected == ["Sum of "])
    first.set()
    assert await becomes(lambda: engine.expected == ["Sum of 1, "])
    second.set()
    await session.read_variable("sum.out", 5)
    assert engine.expected == []


async def test_a_stopped_plan_is_not_expected_any_more(
    session: Session, engine: ScriptedEngine
) -> None:
    engine.hold("1:abc")
    await session.submit(CHAIN)
    assert await becomes(lambda: engine.expected == ["sum of abc, "])
    session.stop_plan()
    assert await becomes(lambda: engine.expected == [])


@pytest.mark.model
async def test_the_real_engine_holds_no_expectation_after_a_plan(model_path: str) -> None:
    loaded = load_model(model_path)
    cache = KVCache(loaded.shapes, 512, loaded.forward.kv_dtype, torch.device("cpu"))
    memory = KVMemory(cache.slots)
    stepper = Stepper(StepModel(loaded.forward, cache), memory, max_batch=4, prefill_budget=128)
    card = ModelCard("real", loaded.context_length)
    engine = TorchEngine(loaded, card, Worker(stepper, 16), capacity=cache.slots, drafting=True)
    core = ServingCore(Fleet(Member("local", LocalEndpoint(engine))), Limits())
    session = core.tenancy().open()
    await session.submit(
        Program(
            calls=[
                call("a", "Name a bird.").model_copy(update={"max_tokens": 30, "temperature": 0}),
                call("b", "Say in one word: {a.out}").model_copy(update={"max_tokens": 2}),
            ]
        )
    )
    expected = [bool(memory.expected) async for _ in session._executor.planned["a"].read()]
    assert any(expected)
    await session.read_variable("b.out", 60)
    await core.aclose()
    await engine.aclose()
    assert memory.expected == {}
    assert memory.used == 0
