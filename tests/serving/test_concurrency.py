"""Concurrency groups: no more than their limit runs, nothing waits in vain, claimed calls go first."""

import asyncio
import random
from contextlib import aclosing

import pytest

from parrot_backend.endpoints.local import LocalEndpoint
from parrot_backend.serving.core import ServingCore
from parrot_backend.serving.dispatch.fleet import Fleet, Member
from parrot_backend.serving.limits import Limits
from parrot_backend.serving.sessions.session import Session
from parrot_backend.wire.errors import InvalidRequestError
from parrot_backend.wire.protocol import Program, SemanticCall
from tests.doubles import ScriptedEngine
from tests.programs import call, request


def grouped(call_id: str, template: str, *groups: str) -> SemanticCall:
    return call(call_id, template).model_copy(update={"concurrency": list(groups)})


def batch(*prompts: str, limit: int) -> Program:
    """Calls of one group, named as their prompts."""
    calls = [grouped(prompt, prompt, "batch") for prompt in prompts]
    return Program(calls=calls, concurrency={"batch": limit})


def states(session: Session) -> dict[str, str]:
    return {view.id: view.state for view in session.graph().calls}


async def settled() -> None:
    """What is ready has gone as far as it can."""
    await asyncio.sleep(0.05)


async def test_no_more_than_the_limit_runs_and_the_rest_is_queued(
    session: Session, engine: ScriptedEngine
) -> None:
    release = {name: engine.hold(name) for name in "abcd"}
    await session.submit(batch(*"abcd", limit=2))
    await settled()
    assert states(session) == {"a": "running", "b": "running", "c": "queued", "d": "queued"}
    assert (session.view().running, session.view().queued) == (2, 2)
    assert engine.started == ["a", "b"]
    release["b"].set()
    await settled()
    assert states(session) == {"a": "running", "b": "done", "c": "running", "d": "queued"}
    for event in release.values():
        event.set()
    await session.read_variable("d.out", 5)
    assert session.view().done == 4
    kinds = [event.kind for event in session.events(0) if event.name == "d"]
    assert kinds[:3] == ["call_planned", "call_queued", "call_started"]


async def test_a_queued_call_can_be_claimed_and_then_goes_first(
    session: Session, engine: ScriptedEngine
) -> None:
    release = {name: engine.hold(name) for name in "abcd"}
    await session.submit(batch(*"abcd", limit=1))
    claimed = session.take(request("d"))
    assert (claimed.id, claimed.claimed, claimed.state) == ("d", True, "queued")
    release["a"].set()
    await settled()
    assert engine.started == ["a", "d"]
    release["d"].set()
    assert [delta.text async for delta in claimed.read()] == ["d"]
    await settled()
    assert engine.started == ["a", "d", "b"], "then the others, as they came"


async def test_a_queued_call_whose_reader_leaves_is_never_started(
    session: Session, engine: ScriptedEngine
) -> None:
    release = engine.hold("a")
    await session.submit(batch("a", "b", "c", limit=1))
    kept = asyncio.create_task(anext(session.take(request("a")).read()))
    leaving = asyncio.create_task(anext(session.take(request("b")).read()))
    await settled()
    leaving.cancel()
    await settled()
    assert states(session)["b"] == "cancelled"
    release.set()
    await kept
    await session.read_variable("c.out", 5)
    assert engine.started == ["a", "c"]


async def test_a_running_call_whose_reader_leaves_frees_its_place(
    session: Session, engine: ScriptedEngine
) -> None:
    engine.hold("xa")
    await session.submit(batch("xa", "b", limit=1))
    waiting = asyncio.create_task(session.read_variable("b.out", 5))
    async with aclosing(session.take(request("xa")).read()) as deltas:
        await anext(deltas)
    assert await waiting == "b"
    assert states(session) == {"xa": "cancelled", "b": "done"}


async def test_a_failed_call_frees_its_place(session: Session) -> None:
    await session.submit(batch("FAIL", "b", limit=1))
    assert await session.read_variable("b.out", 5) == "b"


async def test_who_holds_an_output_finds_the_next_call_queued(
    session: Session, engine: ScriptedEngine
) -> None:
    """The protocol's one promise holds for calls that have to wait for room."""
    engine.hold("other")
    program = batch("a", "other", limit=2)
    await session.submit(program)
    await session.submit(
        Program(calls=[grouped("b", "{a.out}!", "next")], concurrency={"next": 1}),
    )
    await session.submit(Program(calls=[grouped("c", "{a.out}?", "next")]))
    first = session.take(request("a"))
    output = "".join([delta.text async for delta in first.read()])
    assert session.take(request(f"{output}?")).claimed


async def test_a_call_in_several_groups_needs_room_in_each(
    session: Session, engine: ScriptedEngine
) -> None:
    release = {name: engine.hold(name) for name in ("outer", "inner")}
    calls = [
        grouped("outer", "outer", "outer"),
        grouped("inner", "inner", "inner"),
        grouped("both", "both", "inner", "outer", "inner"),
    ]
    await session.submit(Program(calls=calls, concurrency={"outer": 1, "inner": 1}))
    for name in ("outer", "inner"):
        assert states(session)["both"] == "queued"
        release[name].set()
        await settled()
    assert await session.read_variable("both.out", 5) == "htob"


async def test_a_group_that_is_named_again_has_the_new_limit(
    session: Session, engine: ScriptedEngine
) -> None:
    for name in "abcd":
        engine.hold(name)
    await session.submit(batch("a", "b", "c", limit=1))
    await session.submit(batch("d", limit=3))
    await settled()
    assert engine.started == ["a", "b", "c"]
    await session.submit(batch(limit=1))
    assert session.view().queued == 1


async def test_a_group_that_nobody_named_is_refused(session: Session) -> None:
    calls = [call("a", "a"), grouped("b", "b", "batch", "batches")]
    with pytest.raises(InvalidRequestError, match="'batches'") as caught:
        await session.submit(Program(calls=calls, concurrency={"batch": 1}))
    assert (caught.value.param, caught.value.code) == (
        "calls.1.concurrency.1",
        "concurrency_missing",
    )
    assert session.view().planned == 0


async def test_groups_are_bounded(engine: ScriptedEngine) -> None:
    core = ServingCore(
        Fleet(Member("local", LocalEndpoint(engine))), Limits(concurrency_groups_per_session=2)
    )
    session = core.tenancy().open()
    await session.submit(Program(concurrency={"a": 1, "b": 1}))
    await session.submit(Program(concurrency={"a": 2, "b": 1}))
    with pytest.raises(InvalidRequestError) as caught:
        await session.submit(Program(concurrency={"c": 1}))
    assert caught.value.param == "concurrency"
    await core.aclose()


async def test_calls_that_end_as_they_start_end_one_by_one(
    core: ServingCore, session: Session, engine: ScriptedEngine
) -> None:
    """Each frees its place for the next, which ends too: in a loop, however many there are."""
    engine.script = lambda prompt: "x"
    await session.submit(batch(*(f"c{i}" for i in range(3000)), limit=1))
    await asyncio.gather(*(session.read_variable(f"c{i}.out", 60) for i in range(3000)))
    assert session.view().done == 3000


async def test_closing_a_session_starts_nothing(core: ServingCore, engine: ScriptedEngine) -> None:
    session = core.tenancy().open()
    for name in "abc":
        engine.hold(name)
    await session.submit(batch(*"abc", limit=1))
    await settled()
    core.tenancy().close(session.id)
    await settled()
    assert session.view().cancelled == 3
    started = [event.name for event in session.events(0) if event.kind == "call_started"]
    assert started == ["a"]


class Crowd:
    """Random calls in random groups, of which some fail and some are claimed and left."""

    GROUPS = ("a", "b", "c", "d")

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.limits = {name: self.random.randint(1, 4) for name in self.GROUPS}
        self.engine = ScriptedEngine(script=lambda prompt: prompt[:3])
        self.core = ServingCore(Fleet(Member("local", LocalEndpoint(self.engine))), Limits())
        self.session = self.core.tenancy().open()

    def call(self, index: int) -> SemanticCall:
        groups = self.random.sample(self.GROUPS, self.random.randint(0, 3))
        reads = self.random.sample(range(index), min(index, self.random.choice((0, 0, 0, 1, 2))))
        text = f"{index:03d} " + "".join(f"{{c{i}.out}}" for i in reads)
        return grouped(f"c{index}", text + self.random.choice(("", "", "", "FAIL")), *groups)

    def over_the_limit(self) -> list[str]:
        """Groups of which too many run."""
        running = {view.id for view in self.session.graph().calls if view.state == "running"}
        groups = [name for call in self.calls if call.id in running for name in call.concurrency]
        return [name for name, limit in self.limits.items() if groups.count(name) > limit]

    async def read(self, prompt: str) -> None:
        """Claim a call that has not begun or runs, and now and then leave it."""
        async with aclosing(self.session.take(request(prompt)).read()) as deltas:
            async for _ in deltas:
                if self.random.random() < 0.3:
                    break

    async def run(self) -> None:
        self.calls = [self.call(index) for index in range(60)]
        half = len(self.calls) // 2
        await self.session.submit(Program(calls=self.calls[:half], concurrency=self.limits))
        other = asyncio.create_task(self.session.read_variable("last", 60))
        await asyncio.sleep(0)
        await self.session.submit(Program(calls=self.calls[half:], variables={"last": None}))
        readers = [
            asyncio.create_task(self.read(f"{index:03d} "))
            for index in self.random.sample(range(len(self.calls)), 10)
        ]
        while self.session.view().running:
            assert self.over_the_limit() == []
            await asyncio.sleep(0.001)  # the threads that tokenize need the interpreter too
        await asyncio.gather(*readers, return_exceptions=True)
        other.cancel()


@pytest.mark.parametrize("seed", range(20))
async def test_a_crowd_keeps_the_limits_and_all_of_it_ends(seed: int) -> None:
    crowd = Crowd(seed)
    await crowd.run()
    view = crowd.session.view()
    assert (view.waiting, view.queued, view.running) == (0, 0, 0)
    assert view.done > 10
    await crowd.core.aclose()
    assert crowd.engine.running == 0
