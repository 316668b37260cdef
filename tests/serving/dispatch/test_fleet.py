"""Members come in, are drained, go, and are replaced, while calls run."""

import asyncio
import logging
from dataclasses import replace

import pytest

from parrot_backend.engines.base import ModelCard
from parrot_backend.serving.dispatch.fleet import Fleet, Member
from parrot_backend.serving.tenants import EVERYBODY
from parrot_backend.wire.errors import (
    ConflictError,
    EngineError,
    NotFoundError,
    ParrotError,
    UnavailableError,
)
from tests.serving.dispatch.conftest import MakeDispatcher
from tests.serving.dispatch.doubles import MODEL, StagedEndpoint, a_call, enter, settle


class SlowEndpoint(StagedEndpoint):
    """It starts when it is told to."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.let = asyncio.Event()

    async def start(self) -> None:
        await self.let.wait()
        await super().start()


def serving(model: str, **options: object) -> StagedEndpoint:
    endpoint = StagedEndpoint(**options)
    endpoint.card = replace(endpoint.card, model=replace(MODEL, name=model))
    return endpoint


async def test_the_first_that_is_ready_opens_the_fleet_and_the_others_come_later() -> None:
    fleet, slow = Fleet(), SlowEndpoint()
    await fleet.open([Member("slow", slow), Member("quick", serving("q"))])
    assert fleet.states == {"slow": "starting", "quick": "ready"}
    assert fleet.model == "q"
    slow.let.set()
    await settle()
    assert fleet.states == {"slow": "ready", "quick": "ready"}
    assert fleet.model == "scripted", "the operator's first serves who names no model"
    await fleet.aclose()
    assert slow.closed


async def test_who_can_not_be_started_is_told_and_the_others_serve(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    fleet, bad = Fleet(), StagedEndpoint(refusal=EngineError("it needs a key: set ABC"))
    good = StagedEndpoint(engine="vLLM 0.32.0 at h:1")
    await fleet.open([Member("bad", bad), Member("good", good)])
    await settle()
    assert fleet.states == {"bad": "failed", "good": "ready"}
    assert [one.why for one in fleet.outside] == ["it needs a key: set ABC"]
    assert "engine 'bad' can't be used: it needs a key: set ABC" in caplog.messages
    assert "engine 'good' (vLLM 0.32.0 at h:1) serves 'scripted'" in caplog.messages
    assert bad.closed
    await fleet.remove("bad")
    assert fleet.states == {"good": "ready"}


@pytest.mark.parametrize("slow", ["first", "second"])
async def test_an_alias_of_two_models_is_the_first_ones_whoever_answers_first(
    slow: str, caplog: pytest.LogCaptureFixture
) -> None:
    fleet, late = Fleet(), SlowEndpoint()
    other = serving("other")
    first, second = (late, other) if slow == "first" else (other, late)
    mine, yours = ("scripted", "other") if slow == "first" else ("other", "scripted")
    await fleet.open([Member("a", first, ("gpt", "x")), Member("b", second, ("gpt", "y"))])
    assert fleet.names.served("gpt", EVERYBODY) == "other"
    late.let.set()
    await settle()
    assert fleet.states == {"a": "ready", "b": "ready"}
    assert fleet.names.of(EVERYBODY) == {
        mine: mine,
        yours: yours,
        "gpt": mine,
        "x": mine,
        "y": yours,
    }
    assert fleet.model == mine
    told = (
        f"engine 'b' can't be called 'gpt': that is an alias of engine 'a', which serves '{mine}'"
    )
    assert [line for line in caplog.messages if told in line] == [f"{told}. Give it another name"]
    await fleet.aclose()


async def test_a_model_has_its_name_and_not_another_ones_alias() -> None:
    fleet = Fleet()
    await fleet.open([Member("a", StagedEndpoint(), ("gpt",)), Member("b", serving("gpt"))])
    await settle()
    assert fleet.names.of(EVERYBODY) == {"scripted": "scripted", "gpt": "gpt"}


async def test_a_seat_tells_why_its_engine_is_lost_while_it_is() -> None:
    endpoint = StagedEndpoint()
    fleet = Fleet(Member("one", endpoint))
    (seat,) = fleet.seats
    endpoint.why = "h:1 can't be reached"
    assert seat.why is None
    endpoint.die()
    assert seat.why == "h:1 can't be reached"


async def test_a_fleet_that_nobody_can_open_says_why() -> None:
    fleet = Fleet()
    with pytest.raises(EngineError, match="no such host"):
        await fleet.open([Member("bad", StagedEndpoint(refusal=EngineError("no such host")))])


async def test_a_fault_of_ours_in_a_start_is_told_as_an_error_of_that_engine() -> None:
    class Broken(StagedEndpoint):
        async def start(self) -> None:
            raise ZeroDivisionError("oh")

    with pytest.raises(EngineError, match=r"engine 'broken' can't be started: .*oh"):
        await Fleet(Member("one", StagedEndpoint())).add(Member("broken", Broken()))


@pytest.mark.parametrize(
    ("new", "why"),
    [
        (Member("one", serving("other")), "there is an engine 'one' already"),
        (Member("two", serving("other"), aliases=("a",)), "an alias of engine 'one'"),
        (Member("two", serving("other"), aliases=("scripted",)), "a model of engine 'one'"),
        (Member("two", serving("a")), "an alias of engine 'one'"),
        (Member("two", serving("other"), aliases=("x", "x")), "has the alias 'x' twice"),
        (Member("two", serving("other"), aliases=("other",)), "has the alias 'other' twice"),
        (Member("two", StagedEndpoint(tokens=[1, 9])), "makes other tokens .* than engine 'one'"),
    ],
)
async def test_what_can_not_come_in_is_refused_with_the_reason(new: Member, why: str) -> None:
    fleet = Fleet(Member("one", StagedEndpoint(tokens=[1, 2, 3]), aliases=("a",)))
    with pytest.raises(ConflictError, match=why):
        await fleet.add(new)
    assert fleet.states == {"one": "ready"}
    if new.name != "one":
        assert new.endpoint.closed


@pytest.mark.parametrize("tokens", [[1, 2, 3], [0, 1, 2, 3], [2, 3]])
async def test_a_token_before_the_text_makes_no_other_tokenizer(tokens: list[int]) -> None:
    fleet = Fleet(Member("one", StagedEndpoint(tokens=[1, 2, 3]), aliases=("a",)))
    await fleet.add(Member("two", StagedEndpoint(tokens=tokens), aliases=("a",)))
    assert len(fleet.seats) == 2


async def test_who_can_not_tokenize_may_come_in() -> None:
    class Dumb(StagedEndpoint):
        async def tokenize(self, request: object) -> list[int]:
            raise ParrotError("it has no tokenizer")

    fleet = Fleet(Member("one", StagedEndpoint(tokens=[1, 2, 3])))
    await fleet.add(Member("two", Dumb()))
    assert len(fleet.seats) == 2


async def test_another_model_may_have_another_tokenizer() -> None:
    fleet = Fleet(Member("one", StagedEndpoint(tokens=[1, 2, 3])))
    await fleet.add(Member("two", StagedEndpoint(tokens=[9]), model="renamed"))
    assert list(fleet.names.of(a_call("x").tenant)) == ["scripted", "renamed"]


async def test_one_that_is_drained_ends_what_it_runs_and_takes_no_more(
    dispatch: MakeDispatcher,
) -> None:
    one, two = StagedEndpoint(), StagedEndpoint()
    dispatcher = dispatch(Member("one", one))
    first, second = a_call("first"), a_call("second")
    enter(dispatcher, first)
    await settle()
    await dispatcher.fleet.drain("one")
    enter(dispatcher, second)
    await settle()
    assert dispatcher.fleet.states == {"one": "draining"}
    assert (first.state, second.state) == ("running", "queued")
    await dispatcher.fleet.add(Member("two", two))
    await settle()
    assert (second.state, second.engine) == ("running", "two")
    one.answer("first", "fine")
    await settle()
    assert (first.state, first.text, first.lost) == ("done", "fine", [])


async def test_one_that_is_removed_has_time_for_what_it_runs(dispatch: MakeDispatcher) -> None:
    one, two = StagedEndpoint(), StagedEndpoint()
    dispatcher = dispatch(Member("one", one), Member("two", two))
    first, second = a_call("first"), a_call("second")
    enter(dispatcher, first, second)
    await settle()
    going = next(seat for seat in dispatcher.fleet.seats if seat.name == first.engine)
    removal = asyncio.create_task(dispatcher.fleet.remove(going.name))
    await settle()
    assert not going.endpoint.closed
    going.endpoint.answer("first", "fine")
    await removal
    assert first.text == "fine"
    assert going.endpoint.closed
    assert going.name not in dispatcher.fleet.states


async def test_what_takes_longer_than_that_runs_elsewhere(dispatch: MakeDispatcher) -> None:
    one, two = StagedEndpoint(), StagedEndpoint()
    dispatcher = dispatch(Member("one", one))
    call = a_call("call")
    enter(dispatcher, call)
    await settle()
    await dispatcher.fleet.add(Member("two", two))
    await dispatcher.fleet.remove("one", 0.0)
    await settle()
    assert (call.state, call.engine) == ("running", "two")
    two.answer("call", "fine")
    await settle()
    assert call.text == "fine"
    assert [(lost.engine, lost.reason) for lost in call.view().attempts] == [
        ("one", "engine 'one' was removed")
    ]


async def test_with_the_last_engine_of_a_model_go_its_calls(dispatch: MakeDispatcher) -> None:
    one = StagedEndpoint(1)
    dispatcher = dispatch(Member("one", one), Member("other", serving("other")))
    running, queued = a_call("running"), a_call("queued")
    enter(dispatcher, running, queued)
    await settle()
    await dispatcher.fleet.remove("one", 0.0)
    await settle()
    for call in (running, queued):
        assert call.state == "failed"
        assert isinstance(call.error, UnavailableError)
    with pytest.raises(NotFoundError, match="this server serves 'other'"):
        dispatcher.served("scripted")
    await dispatcher.fleet.add(Member("again", StagedEndpoint()))
    late = a_call("late", model="scripted")
    enter(dispatcher, late)
    assert late.engine == "again"


@pytest.mark.parametrize("act", ["drain", "remove"])
async def test_who_is_not_there_can_not_go(act: str) -> None:
    with pytest.raises(NotFoundError, match="there is no engine 'two'"):
        await getattr(Fleet(Member("one", StagedEndpoint())), act)("two")


async def test_one_that_is_removed_while_it_starts_is_closed() -> None:
    fleet, slow = Fleet(Member("one", StagedEndpoint())), SlowEndpoint()
    adding = asyncio.create_task(fleet.add(Member("slow", slow)))
    await settle()
    await fleet.remove("slow")
    with pytest.raises(UnavailableError, match="removed before it was ready"):
        await adding
    assert slow.closed
    assert fleet.states == {"one": "ready"}


async def test_a_reload_changes_what_is_another_and_leaves_the_rest_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    fleet = Fleet()
    made = {name: StagedEndpoint() for name in ("same", "gone", "changed", "by hand", "new")}
    anew = {"same": StagedEndpoint(), "changed": StagedEndpoint()}
    await fleet.open([Member(name, made[name], spec=1) for name in ("same", "gone", "changed")])
    await fleet.add(Member("by hand", made["by hand"]))
    refused = StagedEndpoint(refusal=EngineError("not there"))
    await fleet.reload(
        [
            Member("new", made["new"], spec=1),
            Member("refused", refused, spec=1),
            Member("changed", anew["changed"], spec=2),
            Member("same", anew["same"], spec=1),
        ]
    )
    await fleet.settled()
    states = {"new": "ready", "refused": "failed", "changed": "ready", "same": "ready"}
    assert fleet.states == {**states, "by hand": "ready"}
    assert list(fleet.states) == ["new", "refused", "changed", "same", "by hand"]
    assert made["gone"].closed
    assert made["changed"].closed
    assert not made["same"].closed
    assert [m.endpoint for m in fleet.members] == [
        made["new"],
        anew["changed"],
        made["same"],
        made["by hand"],
    ]
    assert "engine 'refused' can't be used: not there" in caplog.messages
    told = "the engines were read again: added: new, refused; changed: changed; removed: gone"
    assert told in caplog.messages
    await fleet.reload([])
    await fleet.settled()
    assert fleet.states == {"by hand": "ready"}


async def test_a_reload_tells_what_has_changed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    fleet, two = Fleet(), StagedEndpoint()
    first = [Member("one", StagedEndpoint(), ("x",)), Member("two", two, ("y",), model="m")]
    heavy = [first[0], replace(first[1], weight=2.0)]
    await fleet.open(first)
    await settle()
    for members in (first, first[::-1], heavy, first[:1]):
        await fleet.reload(members)
        await fleet.settled()
    await fleet.reload([first[0], Member("three", StagedEndpoint(), ("x",), model="n")])
    await fleet.settled()
    await fleet.drain("one")
    await fleet.reload([replace(first[0], endpoint=StagedEndpoint())])
    await fleet.settled()
    start = "the engines were read again: "
    assert [line.removeprefix(start) for line in caplog.messages if line.startswith(start)] == [
        "nothing has changed",
        "only their order has changed",
        "changed: two",
        "removed: two",
        "added: three",
        "started again: one; removed: three",
    ]
    await fleet.aclose()


async def test_a_name_twice_is_told_and_the_first_serves(caplog: pytest.LogCaptureFixture) -> None:
    fleet = Fleet()
    await fleet.open([Member("one", StagedEndpoint()), Member("one", serving("other"))])
    await settle()
    assert fleet.model == "scripted"
    assert any("there is an engine 'one' already" in told for told in caplog.messages)


async def test_a_model_has_the_shortest_context_of_its_engines(dispatch: MakeDispatcher) -> None:
    long, short, unknown = StagedEndpoint(), StagedEndpoint(), StagedEndpoint()
    for endpoint, length in ((long, 4000), (short, 2000), (unknown, None)):
        endpoint.card = replace(endpoint.card, model=ModelCard("m", length))
    assert dispatch(unknown).served(None).context_length is None
    assert dispatch(long, short, unknown).served(None).context_length == 2000
