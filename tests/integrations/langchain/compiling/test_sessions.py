"""What a compiled run submits, and what it doesn't: calls that can't help, calls beside too many."""

import asyncio
import copy
import pickle
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from operator import itemgetter
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import (
    Runnable,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)

from parrot_backend.engines.base import Delta, GenerationRequest
from parrot_integrations.langchain import ChatParrot, compile, join_texts
from parrot_integrations.planning.session import PlannedSession
from tests.doubles import ScriptedEngine
from tests.integrations.langchain.compiling import watching
from tests.integrations.langchain.compiling.chains import CHAINS, ask
from tests.servers import serving

MODES = (watching.invoke, watching.ainvoke, watching.stream, watching.astream)


class CountingEngine(ScriptedEngine):
    """Takes a moment for an answer, and knows how many it gave at once."""

    most = 0

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        self.most = max(self.most, self.running + 1)
        async for delta in super().generate(request):
            await asyncio.sleep(0.002)
            yield delta


@pytest.fixture(scope="module")
def engine() -> CountingEngine:
    return CountingEngine(lambda prompt: prompt[::-1][:20])


@pytest.fixture(scope="module")
def llm(engine: CountingEngine) -> Iterator[ChatParrot]:
    with serving(engine) as url:
        yield ChatParrot(base_url=url, temperature=0)


def asked_of(llm: ChatParrot) -> int:
    return len(llm.client.sessions())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "name", ["one call", "model on messages", "history", "a lambda in between"]
)
def test_calls_that_are_asked_for_next_anyway_are_not_submitted(
    name: str, mode: Callable[..., Any], llm: ChatParrot
) -> None:
    chain, before = CHAINS[name], asked_of(llm)
    sessions: list[PlannedSession] = []
    compiled = compile(chain.build(llm), on_session=sessions.append)
    mode(compiled, chain.input, {})
    assert sessions == []
    assert asked_of(llm) == before


@pytest.mark.parametrize("mode", MODES)
def test_a_call_behind_a_slow_step_goes_before_it(
    mode: Callable[..., Any], llm: ChatParrot, engine: ScriptedEngine
) -> None:
    """It needs nothing of that step, which waits here until the call has started."""
    engine.started.clear()

    def slow(_: Any) -> str:
        deadline = time.monotonic() + 5
        while "Ask it" not in engine.started and time.monotonic() < deadline:
            time.sleep(0.01)
        return "found" if "Ask it" in engine.started else "too late"

    chain = RunnablePassthrough.assign(context=RunnableLambda(slow)).assign(a=ask("Ask {x}", llm))
    found = mode(compile(chain | itemgetter("context")), {"x": "it"}, {})
    assert found in ("found", ["found"])


def test_a_step_beside_a_call_is_not_before_it(llm: ChatParrot) -> None:
    """A branch that takes its time leaves the call of another where it is: asked for at once."""
    beside = RunnableParallel(slow=RunnableLambda(lambda _: time.sleep(0.1)), a=ask("Ask {x}", llm))
    sessions: list[PlannedSession] = []
    compile(beside, on_session=sessions.append).invoke("it")
    assert sessions == []


@pytest.mark.parametrize("mode", MODES)
def test_what_reads_a_held_answer_behind_a_break_is_planned_with_it(
    mode: Callable[..., Any], llm: ChatParrot
) -> None:
    chain = (
        RunnablePassthrough.assign(draft=ask("Draft {x}", llm))
        .assign(note=lambda value: value["draft"].title())
        .assign(one=ask("{draft} {note}", llm))
        .assign(two=ask("{one} {draft}", llm))
        .pick(["one", "two"])
    )
    sessions: list[PlannedSession] = []
    expected = mode(chain, {"x": "it"}, {})
    found = mode(compile(chain, on_session=sessions.append), {"x": "it"}, {})
    assert _added(found) == _added(expected)
    (session,) = sessions
    assert session.final is not None
    assert session.plan.held == ["call-1"]
    assert (session.final.planned, session.final.claimed, session.final.unplanned) == (2, 2, 0)


def _added(result: Any) -> Any:
    if not isinstance(result, list):
        return result
    added = result[0]
    for chunk in result[1:]:
        added = added + chunk
    return dict(added)


def twenty_four(llm: ChatParrot) -> tuple[Runnable[Any, Any], list[str]]:
    return ask("Name {x}", llm) | ask("Draw {y}", llm), [f"number {n}" for n in range(24)]


@pytest.mark.parametrize("mode", [watching.batch, watching.abatch])
@pytest.mark.parametrize("bound", [False, True])
def test_a_batch_keeps_its_max_concurrency(
    bound: bool, mode: Callable[..., Any], llm: ChatParrot, engine: CountingEngine
) -> None:
    chain, inputs = twenty_four(llm)
    expected, engine.most = chain.batch(inputs), 0
    sessions: list[PlannedSession] = []
    compiled = compile(chain, on_session=sessions.append)
    limit: Any = {"max_concurrency": 2}
    if bound:
        assert mode(compiled.with_config(limit), inputs, {}) == expected
    else:
        assert mode(compiled, inputs, limit) == expected
    assert engine.most == 2
    assert sessions[0].final is not None
    assert sessions[0].final.claimed == 48


@pytest.mark.parametrize("mode", [watching.invoke, watching.ainvoke])
def test_a_max_concurrency_inside_holds_for_what_is_inside(
    mode: Callable[..., Any], llm: ChatParrot, engine: CountingEngine
) -> None:
    each = ask("Name {x}", llm).map().with_config(max_concurrency=3) | join_texts("-")
    chain = RunnableLambda(list) | each | ask("Sum {all}", llm)
    value = [f"number {n}" for n in range(12)]
    expected, engine.most = chain.invoke(value), 0
    assert mode(compile(each | ask("Sum {all}", llm)), value, {}) == expected
    assert engine.most == 3


def test_ahead_false_lets_nothing_leave_early(llm: ChatParrot) -> None:
    def guard(value: Any) -> Any:
        raise PermissionError("not this")

    sessions: list[PlannedSession] = []
    chain = RunnablePassthrough.assign(checked=guard).assign(a=ask("Secret {x}", llm))
    compiled = compile(chain, ahead=False, on_session=sessions.append)
    with pytest.raises(PermissionError):
        compiled.invoke({"x": "it"})
    assert sessions == []
    assert "ahead=False" in compiled.explain({"x": "it"})
    assert compile(compiled).ahead is False
    assert compile(compiled, ahead=True).ahead is True


def test_the_observed_copy_is_made_once_and_survives_copies(llm: ChatParrot) -> None:
    chain = ask("Name {x}", llm) | RunnablePassthrough() | ask("Draw {y}", llm)
    compiled = compile(itemgetter("x") | join_texts("-") | chain)
    broken = compile(RunnableLambda(itemgetter("x")) | chain)
    expected = compiled.invoke({"x": ["it"]})
    for each in (compiled, copy.copy(compiled), copy.deepcopy(compiled)):
        assert each.invoke({"x": ["it"]}) == expected
        assert pickle.loads(pickle.dumps(each)).invoke({"x": ["it"]}) == expected
    behind = compile(chain | str.title | ask("Hang {z}", llm) | ask("Frame {z}", llm))
    first = behind.invoke("it")
    kept = behind._observed
    assert kept is not None
    assert behind.invoke("it") == first
    assert behind._observed is kept
    assert copy.copy(behind).invoke("it") == first
    assert copy.deepcopy(behind).invoke("it") == first
    assert behind.with_config(tags=["t"]).invoke("it") == first
    assert broken.invoke({"x": "it"}) == chain.invoke("it")


async def test_planning_of_a_big_map_leaves_the_event_loop(llm: ChatParrot) -> None:
    threads: set[int] = set()
    part = ask("Name {x}", llm).map() | join_texts("-")
    chain = compile(part)
    plan = type(chain)._planned

    class Watched(type(chain)):  # type: ignore[misc]
        def _planned(self, *arguments: Any) -> Any:
            threads.add(threading.get_ident())
            return plan(self, *arguments)

    watched = Watched(bound=chain.bound)
    await watched.ainvoke(["a", "b"])
    assert threads == {threading.get_ident()}
    threads.clear()
    await watched.ainvoke([str(n) for n in range(60)])
    assert threads
    assert threading.get_ident() not in threads


def test_generate_claims_its_prompts(llm: ChatParrot) -> None:
    before = asked_of(llm)
    prompts = [[HumanMessage(text)] for text in ("one", "two", "three")]
    assert [g[0].text for g in llm.generate(prompts).generations] == ["eno", "owt", "eerht"]
    view = llm.client.sessions()[0]
    assert asked_of(llm) == before + 1
    assert (view.planned, view.claimed, view.unplanned) == (3, 3, 0)
