"""What an operator says is read again while calls run, and engines that were not there come."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from parrot_backend.serving.dispatch import arrivals
from parrot_backend.serving.dispatch.fleet import Fleet, Member
from parrot_backend.serving.tenants import Tenant
from parrot_backend.wire.errors import EndpointLostError, UnavailableError
from tests.serving.dispatch.conftest import MakeDispatcher
from tests.serving.dispatch.doubles import MODEL, StagedEndpoint, a_call, enter, settle
from tests.serving.dispatch.test_fleet import SlowEndpoint, serving


@pytest.fixture
async def fleet(dispatch: MakeDispatcher) -> AsyncIterator[Fleet]:
    made = dispatch().fleet
    yield made
    await made.aclose()


async def test_what_is_only_said_of_an_engine_changes_in_place(dispatch: MakeDispatcher) -> None:
    dispatcher, one = dispatch(), StagedEndpoint(preempts=False)
    fleet = dispatcher.fleet
    await fleet.open([Member("one", one, aliases=("a",), spec="url")])
    running, queued = a_call("running"), a_call("queued")
    enter(dispatcher, running, queued)
    await settle()
    dropped = StagedEndpoint()
    tenants = frozenset({"", "ann"})
    await fleet.reload([Member("one", dropped, ("b",), 2.0, 1, tenants, spec="url")])
    await fleet.settled()
    assert (running.state, queued.state, one.closed) == ("running", "queued", False)
    (member,) = fleet.members
    assert (member.endpoint, member.aliases, member.weight) == (one, ("b",), 2.0)
    assert list(fleet.names.of(Tenant("ann"))) == ["scripted", "b"]
    assert list(fleet.names.of(Tenant("bob"))) == []
    one.answer("running")
    await settle()
    one.answer("queued")
    await settle()
    assert (running.state, queued.state) == ("done", "done")
    assert running.lost == queued.lost == []


async def test_who_may_not_use_its_engine_any_more_does_not_wait_for_it(
    dispatch: MakeDispatcher,
) -> None:
    dispatcher = dispatch()
    await dispatcher.fleet.open([Member("one", StagedEndpoint(preempts=False), spec=1)])
    running, queued = a_call("running"), a_call("queued")
    enter(dispatcher, running, queued)
    await settle()
    tenants = frozenset({"ann"})
    await dispatcher.fleet.reload([Member("one", StagedEndpoint(), spec=1, tenants=tenants)])
    assert queued.state == "failed"
    assert running.state == "running"


async def test_an_alias_goes_from_one_to_another(fleet: Fleet) -> None:
    one, two = StagedEndpoint(), serving("other")
    await fleet.open([Member("one", one, ("a",), spec=1), Member("two", two, spec=2)])
    await settle()
    await fleet.reload([Member("two", two, ("a",), spec=2), Member("one", one, spec=1)])
    await fleet.settled()
    assert fleet.names.of(Tenant()) == {"other": "other", "scripted": "scripted", "a": "other"}


async def test_a_name_that_another_model_has_is_left_out(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = StagedEndpoint(), serving("other")
    await fleet.open([Member("one", one, spec=1), Member("two", two, spec=2)])
    await settle()
    await fleet.reload([Member("one", one, ("other",), spec=1), Member("two", two, spec=2)])
    assert fleet.names.of(Tenant()) == {"scripted": "scripted", "other": "other"}
    assert any("a model of engine 'two'" in told for told in caplog.messages)


async def test_the_new_one_is_ready_before_the_old_one_is_drained(
    dispatch: MakeDispatcher,
) -> None:
    """No call is lost, and none is refused meanwhile."""
    dispatcher, old, new = dispatch(), StagedEndpoint(preempts=False), SlowEndpoint()
    fleet = dispatcher.fleet
    await fleet.open([Member("one", old, spec="old")])
    running, queued = a_call("running"), a_call("queued")
    enter(dispatcher, running, queued)
    await settle()
    await fleet.reload([Member("one", new, spec="new")])
    await settle()
    assert fleet.states == {"one": "ready"}
    assert dispatcher.served(None).name == "scripted"
    new.let.set()
    await settle(20)
    assert (running.state, queued.state) == ("running", "running")
    assert [each.started for each in (old, new)] == [["running"], ["queued"]]
    old.answer("running", "fine")
    await fleet.settled()
    assert (old.closed, new.closed) == (True, False)
    new.answer("queued", "fine")
    await settle()
    assert [call.text for call in (running, queued)] == ["fine", "fine"]
    assert running.lost == queued.lost == []


async def test_one_that_can_not_be_replaced_goes_on(fleet: Fleet) -> None:
    old = StagedEndpoint()
    await fleet.open([Member("one", old, spec="old")])
    refused = StagedEndpoint(refusal=EndpointLostError("not there"))
    await fleet.reload([Member("one", refused, spec="new")])
    await fleet.settled()
    assert (fleet.states, old.closed) == ({"one": "ready"}, False)
    await fleet.reload([Member("one", StagedEndpoint(), spec="old")])
    await fleet.settled()
    assert [m.endpoint for m in fleet.members] == [old]


async def test_where_both_do_not_fit_calls_wait_for_the_new_one(dispatch: MakeDispatcher) -> None:
    dispatcher, old, new = dispatch(), StagedEndpoint(preempts=False), SlowEndpoint()
    fleet = dispatcher.fleet
    await fleet.open([Member("one", old, spec="old", exclusive=True)])
    running, queued = a_call("running"), a_call("queued")
    enter(dispatcher, running, queued)
    await settle()
    await fleet.reload([Member("one", new, spec="new", exclusive=True)])
    await settle()
    assert (running.state, queued.state, old.closed) == ("running", "queued", False)
    old.answer("running")
    await settle()
    assert old.closed
    late = a_call("late")
    enter(dispatcher, late)
    assert (queued.state, late.state) == ("queued", "queued")
    new.let.set()
    await fleet.settled()
    await settle()
    assert (running.state, queued.state, fleet.states) == ("done", "running", {"one": "ready"})


async def test_where_nobody_comes_for_one_that_is_closed_its_calls_fail(
    dispatch: MakeDispatcher,
) -> None:
    dispatcher, old = dispatch(), StagedEndpoint(preempts=False)
    fleet = dispatcher.fleet
    await fleet.open([Member("one", old, spec="old", exclusive=True)])
    running, queued = a_call("running"), a_call("queued")
    enter(dispatcher, running, queued)
    await settle()
    refused = StagedEndpoint(refusal=EndpointLostError("out of memory"))
    await fleet.reload([Member("one", refused, spec="new", exclusive=True)])
    await settle()
    old.answer("running")
    await fleet.settled()
    assert (running.state, queued.state) == ("done", "failed")
    assert fleet.states == {"one": "failed"}
    assert [one.why for one in fleet.outside] == ["out of memory"]


@pytest.mark.parametrize("state", ["failed", "drained"])
async def test_what_has_failed_or_was_drained_is_started_anew(fleet: Fleet, state: str) -> None:
    old, new = StagedEndpoint(), StagedEndpoint()
    await fleet.open([Member("one", old, spec=1)])
    if state == "failed":
        old.become("failed")
    else:
        await fleet.drain("one")
    await fleet.reload([Member("one", new, spec=1)])
    await fleet.settled()
    assert fleet.states == {"one": "ready"}
    assert [m.endpoint for m in fleet.members] == [new]
    assert old.closed


async def test_what_is_dead_comes_back_by_itself(fleet: Fleet) -> None:
    old = StagedEndpoint()
    await fleet.open([Member("one", old, spec=1)])
    old.become("dead")
    await fleet.reload([Member("one", StagedEndpoint(), spec=1)])
    await fleet.settled()
    assert [m.endpoint for m in fleet.members] == [old]


async def test_a_reload_does_not_wait_for_the_slowest_start(fleet: Fleet) -> None:
    slow, unwanted = SlowEndpoint(), SlowEndpoint()
    await fleet.open([Member("one", StagedEndpoint(), spec=1)])
    kept = Member("one", StagedEndpoint(), spec=1)
    starts = [Member("slow", slow, spec=1), Member("unwanted", unwanted, spec=1)]
    await asyncio.wait_for(fleet.reload([kept, *starts]), 1)
    await settle()
    again = Member("slow", StagedEndpoint(), ("s",), spec=1)
    await asyncio.wait_for(fleet.reload([kept, again]), 1)
    await settle()
    assert fleet.states == {"one": "ready", "slow": "starting"}
    assert (slow.closed, unwanted.closed) == (False, True)
    slow.let.set()
    await fleet.settled()
    await settle()
    assert fleet.states == {"one": "ready", "slow": "ready"}
    assert "s" in fleet.names.of(Tenant()), "what was said last counts"


async def test_what_is_taken_back_while_it_starts_does_not_come(fleet: Fleet) -> None:
    old, new = StagedEndpoint(), SlowEndpoint()
    await fleet.open([Member("one", old, spec="old")])
    await fleet.reload([Member("one", new, spec="new")])
    await settle()
    await fleet.reload([Member("one", StagedEndpoint(), spec="old")])
    new.let.set()
    await fleet.settled()
    await settle()
    assert [m.endpoint for m in fleet.members] == [old]
    assert (old.closed, new.closed) == (False, True)


async def test_who_was_not_there_is_tried_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(arrivals, "_FIRST_SECONDS", 0.01)
    down = [EndpointLostError("down"), EndpointLostError("down"), EndpointLostError("busy"), None]
    made = [serving("late", refusal=refusal) for refusal in down]
    left = iter(made[1:])
    late = Member("late", made[0], spec=1, make=lambda: next(left))
    await fleet.open([late, Member("one", StagedEndpoint(), spec=1)])
    await settle()
    assert fleet.states == {"late": "failed", "one": "ready"}
    back = asyncio.Event()
    fleet.listen(lambda seat: back.set() if seat.name == "late" else None)
    await asyncio.wait_for(back.wait(), 10)
    assert fleet.members[0].endpoint is made[-1]
    assert [endpoint.closed for endpoint in made] == [True, True, True, False]
    told = [message for message in caplog.messages if "can't be used" in message]
    assert [message.rpartition(": ")[2] for message in told] == ["down", "busy"]


async def test_who_is_tried_again_can_be_removed(fleet: Fleet) -> None:
    late = Member(
        "late", serving("late", refusal=EndpointLostError("down")), make=lambda: serving("late")
    )
    await fleet.open([late, Member("one", StagedEndpoint())])
    await settle()
    await fleet.remove("late")
    assert fleet.states == {"one": "ready"}


async def test_calls_on_engines_that_are_all_drained_fail_after_a_while(
    dispatch: MakeDispatcher,
) -> None:
    dispatcher = dispatch(Member("one", StagedEndpoint()), drain_seconds=0.05)
    await dispatcher.fleet.drain("one")
    call = a_call("call")
    enter(dispatcher, call)
    await settle()
    assert call.state == "queued"
    await asyncio.sleep(0.1)
    assert call.state == "failed"
    assert isinstance(call.error, UnavailableError)
    assert "being drained: add another one" in call.error.message


async def test_a_model_that_nobody_serves_any_more_is_forgotten(dispatch: MakeDispatcher) -> None:
    dispatcher = dispatch(Member("one", StagedEndpoint()))
    for number in range(5):
        await dispatcher.fleet.add(Member("other", serving(f"m{number}")))
        await dispatcher.fleet.remove("other", 0.0)
    assert list(dispatcher._pools) == ["scripted"]


async def test_a_call_that_is_displaced_before_it_began_runs_elsewhere(
    dispatch: MakeDispatcher,
) -> None:
    dispatcher = dispatch(Member("one", StagedEndpoint(2)), Member("two", StagedEndpoint(2)))
    calls = [a_call("x"), a_call("y")]
    enter(dispatcher, *calls)  # bound in this turn of the loop, and their tasks come in the next
    assert {call.engine for call in calls} == {"one", "two"}
    await dispatcher.fleet.remove("one", 0.0)
    await settle(20)
    assert [(call.state, call.engine) for call in calls].count(("running", "two")) == 2


# An engine that takes nothing for a while


def turn_away(engine: StagedEndpoint, prompt: str) -> None:
    """As an upstream does that is asked for too much, or whose account is empty."""
    run = engine.run_of(prompt)
    engine.card = replace(engine.card, slots=0)
    engine.become("ready")
    run.steps.put_nowait(EndpointLostError("it wants to be left alone"))


def take_again(engine: StagedEndpoint) -> None:
    engine.card = replace(engine.card, slots=1)
    engine.become("ready")


async def test_what_a_busy_engine_refuses_runs_elsewhere(dispatch: MakeDispatcher) -> None:
    busy, other = serving("m", preempts=False), serving("m", preempts=False)
    dispatcher = dispatch(Member("busy", busy))
    call = a_call("call")
    enter(dispatcher, call)
    await settle()
    await dispatcher.fleet.add(Member("other", other))
    turn_away(busy, "call")
    await settle()
    assert (call.state, call.engine, call.attempts, call.lost) == ("running", "other", 1, [])
    later = a_call("later")
    enter(dispatcher, later)
    assert later.state == "queued", "nothing goes to one without slots"
    take_again(busy)
    assert (later.state, later.engine) == ("running", "busy")


async def test_alone_it_is_waited_for_and_not_for_ever(dispatch: MakeDispatcher) -> None:
    busy, call = serving("m", preempts=False), a_call("call")
    enter(dispatch(Member("busy", busy)), call)
    for _ in range(2):
        await settle()
        turn_away(busy, "call")
        await settle()
        assert (call.state, busy.runs) == ("queued", [])
        take_again(busy)
    await settle()
    assert (call.state, call.attempts) == ("running", 1)
    turn_away(busy, "call")
    await settle()
    assert call.state == "failed"
    assert "left alone" in str(call.error)


async def test_cards_are_read_when_something_is_another_and_not_at_each_step(
    dispatch: MakeDispatcher,
) -> None:
    class Counting(StagedEndpoint):
        read = 0

        def __getattribute__(self, name: str) -> object:
            if name == "card":
                Counting.read += 1
            return super().__getattribute__(name)

    one, two = Counting(20, script=None), Counting(20)
    dispatcher = dispatch(Member("one", one), Member("two", two))
    one.become("dead")
    two.become("dead")
    calls = [a_call(f"{number}") for number in range(30)]
    enter(dispatcher, *calls)
    Counting.read = 0
    one.become("ready")
    two.become("ready")
    assert [call.state for call in calls].count("running") == 30
    assert Counting.read < 30
    assert MODEL.name == dispatcher.served(None).name
