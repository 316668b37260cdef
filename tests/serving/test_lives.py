"""How calls, plans and sessions end: each once, and nothing that anybody needs."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

import pytest
from pydantic import ValidationError

from parrot_backend.endpoints.local import LocalEndpoint
from parrot_backend.engines.base import ModelCard
from parrot_backend.serving.call import Call
from parrot_backend.serving.core import ServingCore
from parrot_backend.serving.dispatch.fleet import Fleet, Member
from parrot_backend.serving.limits import Limits
from parrot_backend.serving.sessions import prompts
from parrot_backend.serving.sessions.session import Session
from parrot_backend.serving.tenants import Tenant
from parrot_backend.wire.errors import (
    CancelledCallError,
    ConflictError,
    ContextLengthError,
    DependencyError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
)
from parrot_backend.wire.protocol import Program, SemanticCall, SessionRequest
from parrot_backend.wire.views import CallState
from tests.doubles import ScriptedEngine
from tests.programs import Nobody, call, join, request

MAP_REDUCE = Program(
    variables={"one": "abc", "two": "xyz"},
    transforms=[join("both", "+", "{a.out}", "{b.out}")],
    calls=[call("a", "1:{one}"), call("b", "2:{two}"), call("c", "sum {both}", "report")],
)


async def becomes(condition: Callable[[], bool]) -> bool:
    for _ in range(500):
        if condition():
            return True
        await asyncio.sleep(0.01)
    return False


async def text_of(call: Call) -> str:
    return "".join([delta.text async for delta in call.read()])


def chain(length: int, first: str) -> list[SemanticCall]:
    steps = [call(f"c{i}", f"{{c{i - 1}.out}}") for i in range(1, length)]
    return [call("c0", first), *steps]


@asynccontextmanager
async def serving(engine: ScriptedEngine, limits: Limits) -> AsyncIterator[ServingCore]:
    core = ServingCore(Fleet(Member("local", LocalEndpoint(engine))), limits)
    expiry = asyncio.create_task(core.expire_idle())
    try:
        yield core
    finally:
        expiry.cancel()
        await core.aclose()


async def leave(call: Call) -> None:
    """Read the first delta and go."""
    async with aclosing(call.read()) as deltas:
        await anext(deltas)


# Long chains


@pytest.mark.parametrize("length", [260, 5000])
async def test_a_long_chain_is_closed(
    core: ServingCore, session: Session, engine: ScriptedEngine, length: int
) -> None:
    engine.hold("go")
    await session.submit(Program(calls=chain(length, "go")))
    await asyncio.sleep(0)
    core.tenancy().close(session.id)
    await session.settled()
    assert session.view().cancelled == length


async def test_a_long_chain_fails(session: Session) -> None:
    await session.submit(Program(calls=chain(5000, "FAIL")))
    with pytest.raises(DependencyError, match="call 'c0' failed"):
        await session.read_variable("c4999.out", 5)
    assert session.view().failed == 5000


async def test_a_long_chain_expires_and_the_next_session_too(engine: ScriptedEngine) -> None:
    async with serving(engine, Limits(session_idle_seconds=0.05)) as core:
        engine.hold("go")
        long, other = core.tenancy().open(), core.tenancy().open()
        await long.submit(Program(calls=chain(1000, "go")))
        assert await becomes(lambda: long.closed and other.closed)
        later = core.tenancy().open()
        assert await becomes(lambda: later.closed)


async def test_each_edge_is_gone_along_once(
    session: Session, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing a map of n calls that one reads was n^2 steps, as was settling them."""
    steps = 0
    arrive = session._executor._arrive

    def counted(*arguments: object) -> None:
        nonlocal steps
        steps += 1
        arrive(*arguments)

    monkeypatch.setattr(session._executor, "_arrive", counted)
    reads = "".join(f"{{m{i}.out}}" for i in range(500))
    maps = [call(f"m{i}", f"{i}" if i % 2 else f"FAIL{i}") for i in range(500)]
    await session.submit(Program(calls=[*maps, call("reduce", reads)]))
    with pytest.raises(DependencyError):
        await session.read_variable("reduce.out", 5)
    assert await becomes(lambda: session.view().running == 0)
    assert steps == 500


# Who needs a call


async def test_who_leaves_takes_nothing_from_who_waits(
    session: Session, engine: ScriptedEngine
) -> None:
    """A waits for the report; B claims one of the calls that it is made of, and drops it."""
    release = engine.hold("1:abc")
    await session.submit(MAP_REDUCE)
    report = asyncio.create_task(session.read_variable("report", 5))
    await asyncio.sleep(0)
    await leave(session.take(request("1:abc")))
    release.set()
    assert await report == "sum cba:1+zyx:2"[::-1]


async def test_a_call_that_was_left_lives_while_a_plan_needs_it(
    session: Session, engine: ScriptedEngine
) -> None:
    release = engine.hold("1:abc")
    await session.submit(MAP_REDUCE)
    await leave(session.take(request("1:abc")))
    assert not session.in_use
    release.set()
    assert await session.read_variable("report", 5)


async def test_a_call_that_nobody_needs_ends_when_it_is_left(
    session: Session, engine: ScriptedEngine
) -> None:
    engine.hold("alone")
    await session.submit(Program(calls=[call("a", "alone")]))
    await leave(session.take(request("alone")))
    await leave_new(session, engine)
    assert (session.view().cancelled, session.view().running) == (2, 0)
    assert await becomes(lambda: engine.running == 0)


async def leave_new(session: Session, engine: ScriptedEngine) -> None:
    engine.hold("new")
    await leave(session.take(request("new")))


async def test_a_call_ends_with_the_last_that_needed_it(
    session: Session, engine: ScriptedEngine
) -> None:
    for prompt in ("1:abc", "2:xyz"):
        engine.hold(prompt)
    await session.submit(MAP_REDUCE)
    await leave(session.take(request("1:abc")))
    session.stop_plan()
    assert session.view().cancelled == 3
    assert await becomes(lambda: engine.running == 0)


async def test_a_call_ends_with_the_last_who_waited_for_its_output(
    session: Session, engine: ScriptedEngine
) -> None:
    engine.hold("alone")
    await session.submit(Program(calls=[call("a", "alone")]))
    waiting = asyncio.create_task(session.read_variable("a.out", 5))
    await asyncio.sleep(0)
    await leave(session.take(request("alone")))
    assert session.view().running == 1
    waiting.cancel()
    assert await becomes(lambda: session.view().cancelled == 1)


# Signs of life


async def test_a_plan_without_a_sign_of_life_stops_and_the_session_stays(
    engine: ScriptedEngine,
) -> None:
    async with serving(engine, Limits(plan_grace_seconds=0.1)) as core:
        engine.hold("1:abc")
        session = core.tenancy().open()
        await session.submit(MAP_REDUCE)
        assert await becomes(lambda: session.view().cancelled == 2)
        assert await becomes(lambda: engine.running == 0)
        assert not session.closed
        assert await text_of(session.take(request("2:xyz"))) == "zyx:2", "what was done is there"


@pytest.mark.parametrize("sign", ["inspect", "get", "alive", "wait", "read"])
async def test_any_sign_of_life_keeps_a_plan(engine: ScriptedEngine, sign: str) -> None:
    async with serving(engine, Limits(plan_grace_seconds=0.1, session_idle_seconds=0.2)) as core:
        release = engine.hold("1:abc")
        session = core.tenancy().open()
        await session.submit(MAP_REDUCE)
        tenancy, reading = core.tenancy(), None
        if sign == "wait":
            reading = asyncio.create_task(session.read_variable("report", 5))
        if sign == "read":
            reading = asyncio.create_task(text_of(session.take(request("1:abc"))))
        for _ in range(20):
            if sign in ("inspect", "get"):
                getattr(tenancy, sign)(session.id)
            elif sign == "alive":
                assert tenancy.alive([session.id, "other"]) == [session.id]
            await asyncio.sleep(0.025)
        assert (session.closed, session.view().cancelled) == (False, 0)
        release.set()
        assert await session.read_variable("report", 5)
        if reading is not None:
            await reading


async def test_a_client_says_how_long_it_may_be_silent(engine: ScriptedEngine) -> None:
    async with serving(engine, Limits(plan_grace_seconds=0.1)) as core:
        engine.hold("1:abc")
        session = core.tenancy().open(SessionRequest(grace=30))
        await session.submit(MAP_REDUCE)
        await asyncio.sleep(0.4)
        assert session.view().cancelled == 0


# Ends


async def test_a_reader_of_an_input_that_nobody_sets_ends_with_the_session(
    core: ServingCore, session: Session
) -> None:
    await session.submit(Program(variables={"late": None}))
    reading = asyncio.create_task(session.read_variable("late", 600))
    await asyncio.sleep(0)
    core.tenancy().close(session.id)
    with pytest.raises(CancelledCallError, match="was closed"):
        await asyncio.wait_for(reading, 5)


async def test_shutting_down_leaves_done_what_is_done(engine: ScriptedEngine) -> None:
    core = ServingCore(Fleet(Member("local", LocalEndpoint(engine))), Limits())
    done, running = core.tenancy().run(request("done")), None
    assert await text_of(done) == "enod"
    engine.hold("runs")
    running = core.tenancy().run(request("runs"))
    await asyncio.sleep(0.05)
    await core.aclose()
    assert (done.state, running.state) == ("done", "cancelled")
    assert engine.running == 0


async def test_a_call_ends_once(session: Session, engine: ScriptedEngine) -> None:
    engine.hold("x")
    await session.submit(Program(calls=[call("a", "x")]))
    running = session.take(request("x"))
    running.end("cancelled", CancelledCallError("first"))
    running.end("failed", DependencyError("second"))
    running.end("done")
    assert (running.state, str(running.error)) == ("cancelled", "first")
    view = session.view()
    assert (view.cancelled, view.failed, view.done, view.running) == (1, 0, 0, 0)


async def test_a_program_may_use_the_names_of_other_requests(session: Session) -> None:
    first = session.take(request("first"))
    assert await text_of(first) == "tsrif"
    await session.submit(Program(calls=[call("request-1", "one"), call("request.1", "two")]))
    assert await session.read_variable("request-1.out", 5) == "eno"
    with pytest.raises(ValidationError):
        call(first.id, "the name of a request is none that a program can use")
    assert len({view.id for view in session.graph().calls}) == 3


async def test_a_claimed_call_goes_on_when_its_session_is_closed(
    core: ServingCore, session: Session, engine: ScriptedEngine
) -> None:
    """Its output has failed by then, and nobody can read it; who reads the call can."""
    release = engine.hold("1:abc")
    await session.submit(MAP_REDUCE)
    claimed = session.take(request("1:abc"))
    reading = asyncio.create_task(text_of(claimed))
    await asyncio.sleep(0)
    core.tenancy().close(session.id)
    release.set()
    assert await asyncio.wait_for(reading, 5) == "cba:1"
    assert await becomes(lambda: nothing_left(core))


def nothing_left(core: ServingCore) -> bool:
    dispatcher = core._dispatcher
    running = any(pool.attempts for pool in dispatcher._pools.values())
    return not (dispatcher._held or running or dispatcher._quotas._unfinished)


async def test_a_claim_just_before_the_end_of_a_session_is_answered(
    core: ServingCore, session: Session
) -> None:
    await session.submit(Program(calls=[call("a", "abc")]))
    await session.read_variable("a.out", 5)
    claimed = session.take(request("abc"))
    core.tenancy().close(session.id)
    assert await text_of(claimed) == "cba"


async def test_an_owner_that_raises_lets_nothing_be_held(core: ServingCore) -> None:
    class Careless(Nobody):
        def moved(self, call: Call, before: CallState) -> None:
            super().moved(call, before)
            if call.ended:
                raise RuntimeError("on purpose")

    running = Call("x", Careless(), request("x"))
    core._dispatcher.admit(running.tenant, 1)
    core._dispatcher.track(running)
    with pytest.raises(RuntimeError):
        running.end("done")
    assert nothing_left(core)


async def test_a_large_program_whose_client_leaves_is_taken_in_whole(
    core: ServingCore, session: Session
) -> None:
    program = Program(calls=[call(f"c{i}", f"{i}") for i in range(1000)])
    submitting = asyncio.create_task(session.submit(program))
    await asyncio.sleep(0)
    submitting.cancel()
    assert await becomes(lambda: session.view().done == 1000)


# Bounds


async def test_programs_that_come_together_do_not_pass_a_bound_together(
    engine: ScriptedEngine,
) -> None:
    async with serving(engine, Limits(unfinished_calls=2500, calls_per_session=1500)) as core:
        sessions = [core.tenancy().open() for _ in range(4)]
        program = Program(
            variables={"late": None}, calls=[call(f"c{i}", f"{i}{{late}}") for i in range(1000)]
        )
        results = await asyncio.gather(
            *(session.submit(program) for session in sessions), return_exceptions=True
        )
        assert [type(result) for result in results].count(OverloadedError) == 2
        assert sum(session.view().waiting for session in sessions) == 2000
        session = next(s for s in sessions if s.view().waiting)
        more = [
            Program(calls=[call(f"d{n}.{i}", f"{i}{{late}}") for i in range(300)]) for n in range(3)
        ]
        results = await asyncio.gather(*map(session.submit, more), return_exceptions=True)
        assert [isinstance(result, InvalidRequestError) for result in results].count(True) == 2
        assert session.view().waiting == 1300


async def test_the_texts_of_open_sessions_are_bounded_together(engine: ScriptedEngine) -> None:
    async with serving(engine, Limits(session_bytes=60_000, closed_session_bytes=40_000)) as core:
        program = Program(variables={"late": None}, calls=[call("a", "x" * 20_000 + "{late}")])
        tenants = [core.tenancy(Tenant(name)) for name in "abcd"]
        sessions = [tenancy.open() for tenancy in tenants]
        for session in sessions[:3]:
            await session.submit(program)
        with pytest.raises(OverloadedError, match="hold"):
            await sessions[3].submit(program)
        with pytest.raises(OverloadedError, match="hold"):
            sessions[0].set_variable("late", "y")
        tenants[1].close(sessions[1].id)
        await sessions[3].submit(program)
        tenants[3].close(sessions[3].id)
        for tenancy in (tenants[1], tenants[3]):
            assert len(tenancy.sessions()) == 1, "20 kB each, of 40 kB that each may keep"
        again = tenants[1].open()
        await again.submit(program)
        tenants[1].close(again.id)
        assert [each.id for each in tenants[1].sessions()] == [again.id]


async def test_a_prompt_that_fits_no_context_is_refused_before_it_is_made(
    session: Session, engine: ScriptedEngine
) -> None:
    engine.model = ModelCard("scripted", 1000, longest_text=5000)
    with pytest.raises(ContextLengthError):
        session.take(request("x" * 5001))
    many = "{long}" * 6
    await session.submit(Program(variables={"long": "x" * 1000}, calls=[call("a", many)]))
    with pytest.raises(DependencyError, match="6000 characters"):
        await session.read_variable("a.out", 5)
    assert engine.started == []


async def test_what_is_rendered_and_waits_is_bounded_by_its_characters(
    session: Session, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "MOST_CHARACTERS", 10_000)
    engine.script = lambda prompt: "x"
    released = [engine.hold(f"{n}" + "x" * 3000) for n in range(5)]
    calls = [call(f"c{n}", f"{n}{{long}}") for n in range(5)]
    await session.submit(Program(variables={"long": "x" * 3000}, calls=calls))
    assert session.view().failed == 2
    for each in released:
        each.set()
    assert await session.read_variable("c0.out", 5) == "x"
    assert await becomes(lambda: session.view().running == 0)
    again = Program(calls=[call("d", "again{long}")])
    await session.submit(again)
    assert await session.read_variable("d.out", 5) == "x", "what has ended holds nothing"


async def test_each_turn_of_the_loop_has_one_budget_for_all_sessions(core: ServingCore) -> None:
    """However many sessions have much to do, each gets on, and the loop with them."""
    sessions = [core.tenancy().open() for _ in range(10)]
    program = Program(
        variables={"go": None},
        calls=[call(f"c{i}", f"{i}{{go}}{{go}}") for i in range(190)],
    )
    for session in sessions:
        await session.submit(program)
    turns, worst = 0, 0.0
    for session in sessions:
        session.set_variable("go", "!")
    while any(session.view().waiting for session in sessions):
        begin = time.perf_counter()
        await asyncio.sleep(0)
        turns, worst = turns + 1, max(worst, time.perf_counter() - begin)
    assert turns > 3, "it is not done in one go"


# What is kept


async def test_an_answer_is_kept_no_longer_than_it_can_be_asked_for(
    core: ServingCore, session: Session
) -> None:
    await session.submit(Program(calls=[call("a", "abc"), call("b", "xyz")]))
    await session.read_variable("a.out", 5)
    await session.read_variable("b.out", 5)
    claimed, unclaimed = session.take(request("abc")), session._executor.planned["b"]
    assert await text_of(claimed) == "cba"
    claimed.release()
    unclaimed.release()
    assert (claimed._deltas, claimed.request) == ([], None)
    assert unclaimed.text == "zyx", "somebody may still ask for it"
    core.tenancy().close(session.id)
    assert (unclaimed._deltas, unclaimed.request) == ([], None)


async def test_closed_sessions_are_kept_by_their_bytes_and_age(engine: ScriptedEngine) -> None:
    limits = Limits(closed_session_bytes=10_000, closed_session_seconds=0.5)
    async with serving(engine, limits) as core:
        sessions = [core.tenancy().open() for _ in range(3)]
        for session in sessions:
            await session.submit(Program(variables={"x": "x" * 4000}))
            core.tenancy().close(session.id)
        with pytest.raises(NotFoundError):
            core.tenancy().inspect(sessions[0].id)
        assert core.tenancy().inspect(sessions[2].id) is sessions[2]
        await asyncio.sleep(0.6)
        core.tenancy().expire()
        with pytest.raises(NotFoundError):
            core.tenancy().inspect(sessions[2].id)


# Tenants


async def test_a_tenant_finds_nothing_of_another_s(core: ServingCore) -> None:
    one, two = core.tenancy(Tenant("one")), core.tenancy(Tenant("two"))
    session = one.open(SessionRequest(id="mine", thread="chat"))
    for look in (two.get, two.inspect, two.close):
        with pytest.raises(NotFoundError):
            look("mine")
    assert two.alive(["mine"]) == []
    assert two.sessions() == []
    assert two.open(SessionRequest(id="mine")) is not session
    with pytest.raises(ConflictError):
        one.open(SessionRequest(id="mine"))
    one.close("mine")
    assert [each.closed for each in one.sessions()] == [True]
    assert [each.closed for each in two.sessions()] == [False]


async def test_who_leaves_while_a_large_program_is_taken_in_ends_nothing_that_it_needs() -> None:
    engine = ScriptedEngine()
    core = ServingCore(Fleet(Member("local", LocalEndpoint(engine))), Limits())
    session = core.tenancy().open()
    go_on = engine.hold("map")
    await session.submit(Program(calls=[call("map", "map")]))
    read = session.take(request("map"))
    reading = read.read()
    await anext(reading)
    calls = [*(call(f"c{i}", f"{i}") for i in range(3000)), call("reduce", "{map.out}")]
    adding = asyncio.create_task(session.submit(Program(calls=calls)))
    graph = session._executor.graph
    while "reduce.out" not in graph.inputs:  # noqa: ASYNC110 - there is no event of it
        await asyncio.sleep(0)
    assert not graph.consumers.get("map.out"), "it is in the middle"
    await reading.aclose()
    await adding
    assert read.state == "running"
    go_on.set()
    assert await session.read_variable("reduce.out", 10) == "map"
    await core.aclose()
