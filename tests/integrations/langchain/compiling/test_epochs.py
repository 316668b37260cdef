"""Behind a graph break the plan goes on when the value is there, before the next step runs."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough

from parrot_backend.serving.limits import Limits
from parrot_integrations.langchain import ChatParrot, compile, join_texts
from parrot_integrations.planning.session import PlannedSession
from tests.doubles import ScriptedEngine
from tests.integrations.langchain.compiling import watching
from tests.integrations.langchain.compiling.chains import ask
from tests.integrations.langchain.compiling.watching import Recorder, submitting
from tests.servers import eventually, serving


@pytest.fixture(scope="module")
def scripted() -> ScriptedEngine:
    return ScriptedEngine(lambda prompt: prompt[::-1][:20])


@pytest.fixture(scope="module")
def llm(scripted: ScriptedEngine) -> Iterator[ChatParrot]:
    with serving(scripted) as url:
        yield ChatParrot(base_url=url, temperature=0)


def shout(text: str) -> str:
    return text.swapcase()


def two_breaks(llm: ChatParrot) -> Runnable[Any, Any]:
    first = ask("Name {x}", llm) | shout | ask("Draw {y}", llm) | ask("Frame {z}", llm)
    return first | shout | ask("Hang {a}", llm) | ask("Look at {b}", llm)


@pytest.mark.parametrize(
    "mode", [watching.invoke, watching.ainvoke, watching.stream, watching.astream]
)
def test_calls_behind_a_break_start_before_they_are_asked_for(
    mode: Callable[..., Any], llm: ChatParrot
) -> None:
    sessions: list[PlannedSession] = []
    mode(submitting(two_breaks(llm), sessions.append), {"x": "it"}, {})
    events = sessions[0].events()
    when = {(event.kind, event.name): event.seq for event in events}
    planned = [when["call_planned", f"call-{n}"] for n in range(1, 6)]
    assert planned == sorted(planned)
    assert when["call_planned", "call-3"] < when["call_claimed", "call-2"]
    assert when["call_started", "call-3"] < when["call_claimed", "call-3"]
    assert when["call_planned", "call-4"] > when["call_done", "call-3"], "behind the second break"
    assert len(sessions[0].plan.breaks) == 2


@pytest.mark.model
def test_a_plan_goes_on_on_the_real_engine(base_url: str) -> None:
    llm = ChatParrot(base_url=base_url, temperature=0, max_tokens=8)
    sessions: list[PlannedSession] = []
    compiled = submitting(two_breaks(llm), sessions.append)
    assert compiled.invoke({"x": "a bird"}) == two_breaks(llm).invoke({"x": "a bird"})
    assert sessions[0].final is not None
    assert (sessions[0].final.claimed, sessions[0].final.unplanned) == (5, 0)


def test_elements_of_maps_and_batches_are_told_apart(llm: ChatParrot) -> None:
    each = ask("Name {x}", llm) | (lambda text: {"y": text[:3]}) | ask("Draw {y}", llm)
    whole = {"all": RunnableLambda(list) | each.map() | join_texts("+")} | ask("Sum {all}", llm)
    inputs = [[{"x": "a"}, {"x": "b"}], [{"x": "c"}], [], [{"x": "d"}, {"x": "FAIL"}]]
    sessions: list[PlannedSession] = []
    compiled = compile(whole, on_session=sessions.append)
    found = compiled.batch(inputs, return_exceptions=True)
    expected = whole.batch(inputs, return_exceptions=True)
    assert found[:3] == expected[:3]
    assert type(found[3]) is type(expected[3])
    counts = sessions[0].final
    assert counts is not None
    assert counts.claimed == 2 + 2 + 1 + 1 + 1 + 1 + 1 + 1, "but FAIL, which runs anew"


def test_a_stream_is_planned_at_the_end_of_its_input(llm: ChatParrot) -> None:
    """What comes before belongs to no session."""
    sessions: list[PlannedSession] = []
    inner = ask("Draw {y}", llm) | ask("Frame {z}", llm)
    original = ask("Name {x}", llm) | inner
    half = ask("Name {x}", llm) | submitting(inner, sessions.append)
    assert list(half.stream({"x": "it"})) == list(original.stream({"x": "it"}))
    assert watching.astream(half, {"x": "it"}, {}) == list(original.stream({"x": "it"}))
    counts = [session.final for session in sessions if session.final is not None]
    assert [(c.planned, c.claimed, c.unplanned) for c in counts] == [(2, 2, 0)] * 2


def test_compiled_runnables_may_be_steps_of_compiled_ones(llm: ChatParrot) -> None:
    inner = two_breaks(llm)
    outer = {"x": compile(inner)} | RunnableLambda(lambda v: compile(ask("Now {x}", llm)).invoke(v))
    original = {"x": inner} | ask("Now {x}", llm)
    sessions: list[PlannedSession] = []
    compiled = submitting(outer | ask("End {x}", llm), sessions.append)
    assert compiled.invoke({"x": "it"}) == (original | ask("End {x}", llm)).invoke({"x": "it"})
    assert [session.plan.calls[0].id for session in sessions] == ["call-1"]


def test_a_backend_that_refuses_more_of_the_plan_costs_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving(ScriptedEngine(), limits=Limits(calls_per_session=2)) as url:
        llm = ChatParrot(base_url=url, temperature=0, max_retries=0)
        chain = ask("{x}", llm) | ask("{y}", llm) | shout | ask("{z}", llm) | ask("{a}", llm)
        sessions: list[PlannedSession] = []
        assert compile(chain, on_session=sessions.append).invoke("abc") == chain.invoke("abc")
        assert sessions[0].final is not None
        assert sessions[0].final.claimed == 2, "what was submitted is claimed all the same"
    assert caplog.text.count("running without it") == 1


def test_a_run_id_of_the_users_stays_theirs(llm: ChatParrot) -> None:
    class Ids(Recorder):
        def on_chain_start(self, serialized, inputs, *, run_id, **kwargs) -> None:
            super().on_chain_start(serialized, inputs, run_id=run_id, **kwargs)
            ids.append(run_id)

    ids: list[Any] = []
    config: Any = {"callbacks": [Ids()], "run_id": uuid4()}
    compile(two_breaks(llm)).invoke({"x": "it"}, config)
    assert ids[0] == config["run_id"]
    assert len(set(ids)) == len(ids)
    with pytest.warns(RuntimeWarning, match="run_id"):
        compile(two_breaks(llm)).batch([{"x": "a"}, {"x": "b"}], config)


async def test_cancelling_behind_a_break_frees_everything(
    llm: ChatParrot, scripted: ScriptedEngine
) -> None:
    sessions: list[PlannedSession] = []
    held = f"Hold {scripted.script('Name it').swapcase()}"
    scripted.hold(held)
    chain = ask("Name {x}", llm) | shout | ask("Hold {y}", llm) | ask("Never {z}", llm)
    compiled = compile(RunnablePassthrough() | chain, on_session=sessions.append)
    task = asyncio.create_task(compiled.ainvoke({"x": "it"}))
    await asyncio.to_thread(eventually, lambda: held in scripted.started and scripted.running == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert eventually(lambda: scripted.running == 0)
    assert sessions[0].view().closed
