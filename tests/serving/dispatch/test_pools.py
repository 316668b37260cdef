"""Several engines: who runs what, who may use what, and where a call goes that has lost its engine."""

import asyncio
from dataclasses import replace

import pytest

from parrot_backend.engines.base import Delta
from parrot_backend.serving.dispatch.fleet import Member
from parrot_backend.serving.dispatch.policy import FirstCome, LongestPrefixFirst, Policy
from parrot_backend.serving.rank import Rank
from parrot_backend.serving.tenants import Tenant
from parrot_backend.wire.errors import EndpointLostError, NotFoundError, ParrotError
from parrot_backend.wire.messages import ChatMessage
from parrot_backend.wire.protocol import ChatRequest
from tests.serving.dispatch.conftest import MakeDispatcher
from tests.serving.dispatch.doubles import MODEL, StagedEndpoint, a_call, enter, said, settle

ANN, BOB = Tenant("ann"), Tenant("bob")


def serving(model: str, slots: int = 1, **options: object) -> StagedEndpoint:
    endpoint = StagedEndpoint(slots, **options)
    endpoint.card = replace(endpoint.card, model=replace(MODEL, name=model))
    return endpoint


async def test_calls_go_to_the_engines_of_their_model(dispatch: MakeDispatcher) -> None:
    small, large = serving("small"), serving("large")
    dispatcher = dispatch(small, Member("big", large, aliases=("gpt", "claude")))
    named = {"a": None, "b": "large", "c": "small", "d": "gpt"}
    enter(dispatcher, *[a_call(name, model=model) for name, model in named.items()])
    await settle()
    assert (small.started, large.started) == (["a"], ["b"])
    small.answer("a")
    large.answer("b")
    await settle()
    assert (small.started, large.started) == (["a", "c"], ["b", "d"])
    assert {job.request.model for job in large.jobs} == {"large"}
    assert dispatcher.served("claude").name == "large"
    assert dispatcher.served(None).name == "small"


async def test_a_full_model_is_in_no_other_one_s_way(dispatch: MakeDispatcher) -> None:
    small, large = serving("small", preempts=False), serving("large")
    dispatcher = dispatch(small, large)
    enter(dispatcher, *[a_call(f"{n}", model="small") for n in range(9)])
    call = a_call("call", model="large")
    enter(dispatcher, call)
    assert call.state == "running"


async def test_calls_of_one_model_are_spread_over_its_engines(dispatch: MakeDispatcher) -> None:
    engines = [serving("m", 2, preempts=False) for _ in range(3)]
    dispatcher = dispatch(*engines)
    calls = [a_call(f"{n}") for n in range(9)]
    enter(dispatcher, *calls)
    await settle()
    assert [len(engine.runs) for engine in engines] == [2, 2, 2]
    assert [call.state for call in calls].count("queued") == 3


async def test_an_engine_knows_its_model_by_its_own_name(dispatch: MakeDispatcher) -> None:
    engine = serving("/models/m.gguf")
    dispatcher = dispatch(Member("e", engine, model="m"))
    call = a_call("call", model="m")
    enter(dispatcher, call)
    await settle()
    assert dispatcher.served(None).name == "m"
    assert engine.jobs[0].request.model == "/models/m.gguf"
    assert call.request is not None
    assert call.request.model == "m", "what was asked for stays what it is"


async def test_an_unknown_model_s_error_lists_what_there_is(dispatch: MakeDispatcher) -> None:
    dispatcher = dispatch(serving("small"), Member("e", serving("large"), aliases=("gpt",)))
    with pytest.raises(NotFoundError, match="serves 'small', 'large', 'gpt'") as failure:
        dispatcher.served("llama")
    assert failure.value.code == "model_not_found"
    call = a_call("call", model="llama")
    enter(dispatcher, call)
    assert isinstance(call.error, NotFoundError)


async def test_what_a_tenant_may_not_use_is_not_there_for_it(dispatch: MakeDispatcher) -> None:
    own = Member("own", serving("secret"), aliases=("s",), tenants=frozenset({"ann"}))
    dispatcher = dispatch(own, serving("open"))
    assert dispatcher.served(None, ANN).name == "secret"
    assert dispatcher.served("s", ANN).name == "secret"
    assert dispatcher.served(None, BOB).name == "open"
    for name in ("secret", "s", "nothing"):
        with pytest.raises(NotFoundError) as failure:
            dispatcher.served(name, BOB)
        told = failure.value.message.replace(f"'{name}'", "it", 1)
        assert "'secret'" not in told
        assert "'s'" not in told


async def test_a_tenant_that_may_use_nothing_is_told_so(dispatch: MakeDispatcher) -> None:
    dispatcher = dispatch(Member("own", serving("secret"), tenants=frozenset({"ann"})))
    with pytest.raises(NotFoundError, match="no model is served here"):
        dispatcher.served(None, BOB)


async def test_a_tenant_s_calls_run_where_it_may_and_wait_in_nobody_s_way(
    dispatch: MakeDispatcher,
) -> None:
    own, common = serving("m", preempts=False), serving("m", preempts=False)
    dispatcher = dispatch(Member("own", own, tenants=frozenset({"ann"})), Member("all", common))
    bobs = [a_call(f"bob {n}", tenant=BOB) for n in range(3)]
    enter(dispatcher, *bobs)
    await settle()
    assert (own.started, common.started) == ([], ["bob 0"])
    ann = a_call("ann", tenant=ANN)
    enter(dispatcher, ann)
    await settle()
    assert own.started == ["ann"]
    common.answer("bob 0")
    own.answer("ann")
    await settle()
    assert (own.started, common.started) == (["ann"], ["bob 0", "bob 1"])
    common.answer("bob 1")
    await settle()
    assert common.started[-1] == "bob 2"


@pytest.mark.parametrize("policy", [None, FirstCome, LongestPrefixFirst])
@pytest.mark.parametrize("beside", [False, True])
async def test_who_waits_beside_an_engine_of_others_keeps_its_order(
    dispatch: MakeDispatcher, beside: bool, policy: type[Policy] | None
) -> None:
    """Ranks count, and new ones too, whether or not another tenant's engine is idle."""
    engine, idle = serving("m", preempts=False), serving("m", preempts=False)
    members = [Member("common", engine), Member("ann's", idle, tenants=frozenset({"ann"}))]
    dispatcher = dispatch(*members[: 1 + beside], policy=policy and policy())
    bulk = Rank(application=5, critical=False)
    calls = [a_call(f"{n}", tenant=BOB, rank=bulk) for n in range(4)]
    enter(dispatcher, a_call("runs", tenant=BOB), *calls)
    await settle()
    urgent = a_call("urgent", tenant=BOB)
    enter(dispatcher, urgent)
    calls[3].rank = Rank(application=1)
    dispatcher.rerank(calls[3])
    await settle()
    for _ in range(6):
        engine.answer(engine.started[-1])
        await settle()
    order = ["0", "1", "2", "3", "urgent"] if policy else ["urgent", "3", "0", "1", "2"]
    assert engine.started == ["runs", *order]
    assert idle.started == []


async def test_the_operator_s_limit_is_kept_to(dispatch: MakeDispatcher) -> None:
    engine = serving("m", 8)
    dispatcher = dispatch(Member("e", engine, slots=2))
    enter(dispatcher, *[a_call(f"{n}", rank=Rank(critical=False)) for n in range(3)], a_call("x"))
    await settle()
    assert len(engine.runs) == 2


# Faults


async def test_a_lost_call_runs_on_another_engine_at_once(dispatch: MakeDispatcher) -> None:
    one, two = serving("m"), serving("m")
    dispatcher = dispatch(Member("one", one))
    call = a_call("call")
    enter(dispatcher, call)
    await settle()
    await dispatcher.fleet.add(Member("two", two))
    one.die()
    await settle()
    assert (call.state, call.engine) == ("running", "two")
    two.answer("call", "fine")
    await settle()
    view = call.view()
    assert (view.engine, call.text) == ("two", "fine")
    assert [(lost.engine, lost.reason) for lost in view.attempts] == [("one", "killed")]


async def test_a_call_does_not_go_back_to_where_it_was_lost_while_there_is_another(
    dispatch: MakeDispatcher,
) -> None:
    one, two = serving("m", preempts=False), serving("m", preempts=False)
    dispatcher = dispatch(Member("one", one), Member("two", two))
    other, call = a_call("other"), a_call("call")
    enter(dispatcher, other, call)
    await settle()
    at = {"one": one, "two": two}
    at[call.engine].run_of("call").steps.put_nowait(EndpointLostError("cut off"))
    await settle()
    assert call.state == "queued", "the other one is full"
    at[other.engine].answer("other")
    await settle()
    assert (call.state, call.engine) == ("running", other.engine)


async def test_alone_an_engine_is_tried_again(dispatch: MakeDispatcher) -> None:
    engine = serving("m")
    call = a_call("call")
    enter(dispatch(engine), call)
    await settle()
    engine.run_of("call").steps.put_nowait(EndpointLostError("cut off"))
    await settle()
    assert (call.state, call.attempts) == ("running", 2)


async def test_calls_wait_as_long_as_one_engine_may_come_back(dispatch: MakeDispatcher) -> None:
    one, two = serving("m"), serving("m")
    dispatcher = dispatch(one, two)
    one.become("failed")
    two.become("dead")
    call = a_call("call")
    enter(dispatcher, call)
    assert call.state == "queued"
    two.become("failed")
    assert call.state == "failed"
    assert "could not be started again" in str(call.error)
    late = a_call("late")
    enter(dispatcher, late)
    assert late.state == "failed"


async def test_whose_only_engines_have_failed_does_not_wait_for_those_of_others(
    dispatch: MakeDispatcher,
) -> None:
    own, common = serving("m"), serving("m")
    dispatcher = dispatch(Member("own", own, tenants=frozenset({"ann"})), Member("all", common))
    common.become("dead")
    call = a_call("call", tenant=BOB)
    enter(dispatcher, call)
    assert call.state == "queued"
    common.become("failed")
    assert call.state == "failed"


@pytest.mark.parametrize("first", ["told", "untold", "at the end"])
async def test_an_answer_goes_on_on_an_engine_that_tells_tokens_otherwise(
    dispatch: MakeDispatcher, first: str
) -> None:
    """Some tell which tokens they make, some how many, some only at the end, of all together."""
    one, two = serving("m"), serving("m")
    dispatcher = dispatch(Member("one", one))
    call = a_call("call")
    enter(dispatcher, call)
    read: list[Delta] = []

    async def reader() -> None:
        read.extend([delta async for delta in call.read()])

    task = asyncio.create_task(reader())
    await settle()
    told = {
        "told": said("abc", last=False),
        "untold": Delta("abc", (), 0, untold_tokens=3),
        "at the end": Delta("abc", (), 0),
    }
    one.run_of("call").steps.put_nowait(told[first])
    await settle()
    await dispatcher.fleet.add(Member("two", two))
    one.die()
    await settle()
    if first == "told":
        two.run_of("call").steps.put_nowait(Delta("abcde", (), 0))
        two.run_of("call").steps.put_nowait(Delta("", (), 0, "stop", untold_tokens=5))
    else:
        two.answer("call", "abcde")
    await task
    assert "".join(delta.text for delta in read) == "abcde"
    assert call.completion_tokens == 5
    assert call.state == "done"


@pytest.mark.parametrize(("operator", "told"), [(True, "10.0.0.7:8000"), (False, "the engine")])
async def test_where_an_engine_is_only_operators_are_told(
    dispatch: MakeDispatcher, operator: bool, told: str
) -> None:
    engine = serving("m")
    dispatcher = dispatch(Member("e", engine, place="10.0.0.7:8000"), attempts=2)
    call = a_call("call", tenant=Tenant("ann", operator=operator))
    enter(dispatcher, call)
    for _ in range(2):
        await settle()
        error = EndpointLostError("the connection to 10.0.0.7:8000 failed: ReadError")
        engine.run_of("call").steps.put_nowait(error)
    await settle()
    assert call.error is not None
    assert isinstance(call.error, EndpointLostError)
    assert call.error.message == f"the connection to {told} failed: ReadError"
    assert [lost.reason for lost in call.lost] == [call.error.message] * 2


# What isn't a call


async def test_a_beginning_is_expected_by_one_engine_that_pins(dispatch: MakeDispatcher) -> None:
    dumb, one, two = serving("m", pins=False), serving("m"), serving("m")
    dispatcher = dispatch(dumb, one, two)
    request = ChatRequest(messages=[ChatMessage(role="user", content="known")])
    assert dispatcher.pins("m", ANN)
    forget = dispatcher.expect([request, request], ANN)
    assert (dumb.expected, sorted(one.expected + two.expected)) == ([], ["known"])
    forget()
    assert one.expected + two.expected == []
    one.become("dead")
    two.become("dead")
    assert not dispatcher.pins("m", ANN)
    dispatcher.expect([request, request], ANN)()


async def test_who_can_tokenize_does(dispatch: MakeDispatcher) -> None:
    class Dumb(StagedEndpoint):
        async def tokenize(self, request: object) -> list[int]:
            raise ParrotError("it has no tokenizer")

    dispatcher = dispatch(Dumb(), StagedEndpoint(tokens=[1, 2]))
    request = ChatRequest(messages=[ChatMessage(role="user", content="known")])
    assert await dispatcher.tokenize(request, None, ANN) == [1, 2]
    with pytest.raises(ParrotError, match="no tokenizer"):
        await dispatch(Dumb()).tokenize(request, None, ANN)


async def test_who_waits_for_one_that_hangs_goes_elsewhere_by_itself(
    dispatch: MakeDispatcher,
) -> None:
    """Nothing else happens meanwhile: a timer says that it is time to choose anew."""
    engines = [serving("m", 4, preempts=False, sharing="computed") for _ in range(2)]
    dispatcher = dispatch(*engines)
    calls = [a_call(f"{n}", system="s" * 1600) for n in range(2)]
    enter(dispatcher, *calls)
    await settle()
    assert [call.state for call in calls] == ["running", "queued"]
    for _ in range(1000):
        if all(engine.runs for engine in engines):
            break
        await asyncio.sleep(0.02)
    assert {call.engine for call in calls} == {"e0", "e1"}
