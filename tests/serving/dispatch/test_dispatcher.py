"""The queue, its slots and what a call holds until its end."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from parrot_backend.endpoints.local import LocalEndpoint
from parrot_backend.engines.base import Delta
from parrot_backend.serving.call import Call
from parrot_backend.serving.rank import Rank
from parrot_backend.serving.tenants import Tenant
from parrot_backend.wire.errors import (
    DeadlineError,
    EngineError,
    NotFoundError,
    ParrotError,
    UnavailableError,
)
from parrot_backend.wire.parameters import GenerationConfig
from tests.doubles import ScriptedEngine
from tests.serving.dispatch.conftest import MakeDispatcher
from tests.serving.dispatch.doubles import (
    Book,
    StagedEndpoint,
    a_call,
    enter,
    nothing_left,
    said,
    settle,
)

BULK = Rank(critical=False)


async def text_of(call: Call) -> str:
    return "".join([delta.text async for delta in call.read()])


async def failure_of(call: Call) -> ParrotError:
    with pytest.raises(ParrotError) as failure:
        await text_of(call)
    return failure.value


async def test_a_call_runs_at_once_where_a_slot_is_free(dispatch: MakeDispatcher) -> None:
    book = Book()
    dispatcher = dispatch(StagedEndpoint(1))
    first, second = a_call("a", owner=book), a_call("b", owner=book)
    enter(dispatcher, first, second)
    assert (first.state, second.state) == ("running", "queued")
    assert book.states == {"a": ["queued", "running"], "b": ["queued"]}


async def test_the_answer_of_a_real_chain_of_layers_arrives(dispatch: MakeDispatcher) -> None:
    engine = ScriptedEngine()
    dispatcher = dispatch(LocalEndpoint(engine))
    call = a_call("abc", rank=replace(BULK, application=7))
    enter(dispatcher, call)
    assert await text_of(call) == "cba"
    assert call.state == "done"
    assert engine.priorities == {"abc": call.rank.priority}
    await settle()
    assert nothing_left(dispatcher)


async def test_calls_are_bound_by_their_rank_when_a_slot_is_free(dispatch: MakeDispatcher) -> None:
    """Late binding: what came while the slot was taken is ordered when it is free."""
    endpoint = StagedEndpoint(1)
    dispatcher = dispatch(endpoint)
    enter(dispatcher, a_call("running"), a_call("bulk", rank=BULK), a_call("chat"))
    await settle()
    endpoint.answer("running")
    await settle()
    assert endpoint.started == ["running", "chat"]


async def test_what_waits_is_ranked_anew(dispatch: MakeDispatcher) -> None:
    endpoint = StagedEndpoint(1)
    dispatcher = dispatch(endpoint)
    near, far = a_call("near"), a_call("far", rank=Rank(path=2))
    enter(dispatcher, a_call("running"), near, far)
    near.rank = Rank(path=3)
    dispatcher.rerank(near)
    await settle()
    endpoint.answer("running")
    await settle()
    assert endpoint.started == ["running", "near"]


async def test_a_place_is_free_when_the_dependents_are_in_the_queue(
    dispatch: MakeDispatcher,
) -> None:
    """A call's end makes others ready; the first of them may go before who waits already."""
    endpoint = StagedEndpoint(1)
    dispatcher = dispatch(endpoint)

    class Owner(Book):
        def moved(self, call: Call, before: str) -> None:
            if call.state == "done" and call.id == "first":
                enter(dispatcher, a_call("dependent", rank=Rank(application=1)))
                enter(dispatcher, a_call("urgent", rank=Rank(application=0)))

    enter(dispatcher, a_call("first", owner=Owner()), a_call("other", rank=Rank(application=2)))
    await settle()
    endpoint.answer("first")
    await settle()
    assert endpoint.started == ["first", "urgent"]


async def test_bulk_does_not_stand_in_the_way_of_chat_where_it_is_preempted(
    dispatch: MakeDispatcher,
) -> None:
    endpoint = StagedEndpoint(2)
    dispatcher = dispatch(endpoint)
    bulk = [a_call(f"bulk {n}", rank=BULK) for n in range(10)]
    chats = [a_call(f"chat {n}") for n in range(3)]
    enter(dispatcher, *bulk, *chats)
    await settle()
    assert endpoint.started == ["bulk 0", "bulk 1", "chat 0", "chat 1"]
    endpoint.answer("bulk 0")
    await settle()
    assert len(endpoint.started) == 4  # chats have the slots
    endpoint.answer("chat 0")
    await settle()
    assert endpoint.started[-1] == "chat 2"


async def test_there_are_never_more_than_two_for_a_slot_and_chats_have_the_last(
    dispatch: MakeDispatcher,
) -> None:
    endpoint = StagedEndpoint(4)
    dispatcher = dispatch(endpoint)
    for name, rank in (("bulk", BULK), ("batch", Rank(batched=True)), ("chat", Rank())):
        enter(dispatcher, *[a_call(name, rank=rank) for _ in range(10)])
    await settle()
    assert Counter(endpoint.started) == {"bulk": 4, "batch": 2, "chat": 2}


async def test_bulk_keeps_its_slots_where_nothing_is_preempted(dispatch: MakeDispatcher) -> None:
    endpoint = StagedEndpoint(2, preempts=False)
    dispatcher = dispatch(endpoint)
    enter(dispatcher, *[a_call(f"bulk {n}", rank=BULK) for n in range(3)], a_call("chat"))
    await settle()
    assert endpoint.started == ["bulk 0", "bulk 1"]
    endpoint.answer("bulk 1")
    await settle()
    assert endpoint.started[-1] == "chat"


@pytest.mark.parametrize("preempts", [True, False])
async def test_a_map_of_5000_parts_runs_on_32_slots(
    dispatch: MakeDispatcher, preempts: bool
) -> None:
    endpoint = StagedEndpoint(32, lambda prompt: [said("x", last=False), said(prompt)])
    endpoint.card = replace(endpoint.card, preempts=preempts)
    dispatcher = dispatch(endpoint)
    calls = [a_call(f"part {n}", rank=Rank(batched=True)) for n in range(5000)]
    enter(dispatcher, *calls)
    await asyncio.gather(*[text_of(call) for call in calls])
    assert {call.state for call in calls} == {"done"}
    assert endpoint.most == 32
    assert endpoint.started == [call.id for call in calls]


async def test_nothing_is_bound_until_the_endpoint_is_ready(dispatch: MakeDispatcher) -> None:
    endpoint = StagedEndpoint(1000)
    endpoint.become("starting")
    dispatcher = dispatch(endpoint)
    calls = [a_call(f"{n}") for n in range(600)]
    enter(dispatcher, *calls)
    assert {call.state for call in calls} == {"queued"}
    endpoint.become("ready")
    assert 0 < sum(call.state == "running" for call in calls) < 600  # the loop has its turn between
    await settle()
    assert {call.state for call in calls} == {"running"}


async def test_a_slot_is_taken_until_the_endpoint_has_freed_it(dispatch: MakeDispatcher) -> None:
    """A cancelled job holds its slot until its generator is closed."""
    endpoint = StagedEndpoint(1, preempts=False)
    dispatcher = dispatch(endpoint)
    first, second = a_call("a"), a_call("b")
    enter(dispatcher, first, second)
    await settle()
    first.end("cancelled")
    assert second.state == "queued"
    await settle()
    assert second.state == "running"
    assert endpoint.most == 1


async def test_a_call_that_ends_before_its_task_began_frees_its_slot(
    dispatch: MakeDispatcher,
) -> None:
    endpoint = StagedEndpoint(1)
    dispatcher = dispatch(endpoint)
    first, second = a_call("a"), a_call("b")
    enter(dispatcher, first, second)
    first.end("cancelled")
    await settle()
    assert endpoint.started == ["b"]


async def test_who_ends_in_the_queue_leaves_it(dispatch: MakeDispatcher) -> None:
    endpoint = StagedEndpoint(1)
    dispatcher = dispatch(endpoint)
    first, second, third = a_call("a"), a_call("b"), a_call("c")
    enter(dispatcher, first, second, third)
    second.end("cancelled")
    await settle()
    endpoint.answer("a")
    await settle()
    assert endpoint.started == ["a", "c"]


async def test_every_call_has_a_deadline(dispatch: MakeDispatcher) -> None:
    endpoint = StagedEndpoint(1)
    dispatcher = dispatch(endpoint, call_seconds=0.01)
    running, waiting = a_call("a"), a_call("b")
    enter(dispatcher, running, waiting)
    assert isinstance(await failure_of(running), DeadlineError)
    assert isinstance(await failure_of(waiting), DeadlineError)
    await settle()
    assert nothing_left(dispatcher)
    assert endpoint.runs == []


async def test_a_deadline_is_gone_with_its_call(dispatch: MakeDispatcher) -> None:
    dispatcher = dispatch(LocalEndpoint(ScriptedEngine()))
    call = a_call("abc")
    enter(dispatcher, call)
    deadline = dispatcher._held[call].deadline
    await text_of(call)
    assert deadline is not None
    assert deadline.cancelled()


async def test_an_answer_without_a_finish_reason_is_the_engines_fault(
    dispatch: MakeDispatcher,
) -> None:
    endpoint = StagedEndpoint(1)
    dispatcher = dispatch(endpoint)
    call, other = a_call("a"), a_call("b")
    enter(dispatcher, call, other)
    await settle()
    endpoint.answer("a", "some", last=False)
    endpoint.run_of("a").steps.put_nowait(None)
    error = await failure_of(call)
    assert isinstance(error, EngineError)
    assert "without a finish reason" in error.message
    assert other.state == "running"


async def test_what_nobody_expected_fails_that_call_alone(
    dispatch: MakeDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = StagedEndpoint(2)
    dispatcher = dispatch(endpoint)
    broken, other = a_call("broken"), a_call("other")
    enter(dispatcher, broken, other)
    await settle()
    endpoint.run_of("broken").steps.put_nowait(ZeroDivisionError("oh"))
    error = await failure_of(broken)
    assert isinstance(error, EngineError)
    assert "oh" in error.message
    assert "Traceback" in caplog.text
    endpoint.answer("other", "fine")
    assert await text_of(other) == "fine"


async def test_closing_ends_everything(dispatch: MakeDispatcher) -> None:
    endpoint = StagedEndpoint(1)
    dispatcher = dispatch(endpoint)
    waiting = a_call("waiting")
    dispatcher.admit(waiting.tenant, 1)
    dispatcher.track(waiting)
    running, queued, late = a_call("a"), a_call("b"), a_call("c")
    enter(dispatcher, running, queued)
    await settle()
    dispatcher.admit(late.tenant, 1)
    await dispatcher.aclose()
    assert endpoint.runs == []
    dispatcher.track(late)
    dispatcher.enter(late)
    assert nothing_left(dispatcher)
    for call in (waiting, running, queued, late):
        assert isinstance(await failure_of(call), UnavailableError)


async def test_only_the_model_that_is_served_is_found(dispatch: MakeDispatcher) -> None:
    dispatcher = dispatch(StagedEndpoint())
    assert dispatcher.served(None).name == dispatcher.served("scripted").name == "scripted"
    with pytest.raises(NotFoundError):
        dispatcher.served("another")


async def test_lengths_are_learned_of_calls_that_are_done(dispatch: MakeDispatcher) -> None:
    dispatcher = dispatch(LocalEndpoint(ScriptedEngine()))
    call = a_call("abc", rank=Rank(site="here"))
    enter(dispatcher, call)
    await text_of(call)
    assert dispatcher.lengths.expected("here") == 3


@pytest.mark.parametrize(
    ("own", "asked", "expected"), [(None, None, 128), (9, None, 9), (9, 20, 20)]
)
async def test_no_answer_is_expected_to_be_longer_than_it_may_be(
    dispatch: MakeDispatcher, own: int | None, asked: int | None, expected: int
) -> None:
    engine = ScriptedEngine()
    engine.model = replace(engine.model, generation_config=GenerationConfig(max_tokens=own))
    assert dispatch(LocalEndpoint(engine)).expected_answer("unknown", asked) == expected


# Shares, with everything between a call and its tokens


def answering(tokens: int) -> list[Delta]:
    return [said("x", last=n == tokens - 1) for n in range(tokens)]


async def test_two_tenants_have_equal_shares_under_saturation(dispatch: MakeDispatcher) -> None:
    """One sends many short calls, the other few long ones, each more than there is room for."""
    lengths = {"short": 15, "long": 120}
    endpoint = StagedEndpoint(4, lambda prompt: answering(lengths[prompt]))
    dispatcher = dispatch(endpoint)
    long = [a_call("long", tenant=Tenant("b"), rank=Rank(application=1)) for _ in range(150)]
    short = [a_call("short", tenant=Tenant("a")) for _ in range(1200)]
    enter(dispatcher, *long, *short)

    def served(calls: list[Call]) -> int:
        return sum(call.completion_tokens for call in calls)

    while served(long + short) < 20_000:
        await settle(200)
    assert served(long) == pytest.approx(served(short), rel=0.1)


async def test_a_chat_goes_before_a_queue_full_of_bulk(dispatch: MakeDispatcher) -> None:
    endpoint = StagedEndpoint(4, lambda _: answering(5), preempts=False)
    dispatcher = dispatch(endpoint)
    bulk = [a_call(f"{n}", rank=replace(BULK, application=n)) for n in range(1000)]
    enter(dispatcher, *bulk)
    await settle()
    bound = sum(call.state != "queued" for call in bulk)
    chat = a_call("chat", rank=Rank(application=2000))
    enter(dispatcher, chat)
    await text_of(chat)
    assert endpoint.started.index("chat") == bound


async def test_a_newcomer_is_not_held_up_by_a_thread_that_has_had_much(
    dispatch: MakeDispatcher,
) -> None:
    endpoint = StagedEndpoint(1, lambda _: answering(100))
    dispatcher = dispatch(endpoint)
    thread = [a_call(f"turn {n}") for n in range(200)]
    enter(dispatcher, *thread)
    while sum(call.ended for call in thread) < 60:
        await settle()
    newcomer = a_call("newcomer", rank=Rank(application=1))
    enter(dispatcher, newcomer)
    await text_of(newcomer)
    assert sum(call.ended for call in thread) <= 63


async def test_many_at_once_do_not_come_at_no_price(dispatch: MakeDispatcher) -> None:
    """Before the first token is counted, every slot is given away: by what is expected."""
    endpoint = StagedEndpoint(8)
    dispatcher = dispatch(endpoint)
    endpoint.become("starting")
    enter(dispatcher, *[a_call("first", tenant=Tenant("a")) for _ in range(20)])
    enter(dispatcher, *[a_call("second", tenant=Tenant("b")) for _ in range(20)])
    endpoint.become("ready")
    await settle()
    assert Counter(endpoint.started) == {"first": 4, "second": 4}
