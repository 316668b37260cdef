"""Compiled and uncompiled are the same: results, callback events, errors; and the plan is used."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough

from parrot_backend.engines.base import Engine
from parrot_integrations.langchain import ChatParrot, compile, join_texts
from parrot_integrations.planning.session import PlannedSession
from tests.doubles import ScriptedEngine
from tests.integrations.langchain.compiling import watching
from tests.integrations.langchain.compiling.chains import CHAINS, Chain, ask, map_reduce
from tests.integrations.langchain.compiling.watching import Recorder, plain, submitting
from tests.servers import eventually, serving

DOUBLE = (
    watching.batch,
    watching.abatch,
    watching.batch_as_completed,
    watching.abatch_as_completed,
)
STREAMS = (watching.stream, watching.astream)
SINGLE = (watching.invoke, watching.ainvoke, *STREAMS, watching.astream_events)


def assert_the_same(
    chain: Chain, llm: ChatParrot, mode: Callable[..., Any], whole: bool = False
) -> None:
    """Runs the chain both ways and compares what can be seen; the compiled run claims its plan.

    With `whole`, streams are equal that are cut into chunks differently.
    """
    sessions: list[PlannedSession] = []
    original = chain.build(llm)
    compiled = submitting(original, sessions.append)
    recorders = Recorder(whole), Recorder(whole)
    value = chain.input if mode in SINGLE else [chain.input] * 2
    expected = mode(original, value, {"callbacks": [recorders[0]]})
    found = mode(compiled, value, {"callbacks": [recorders[1]]})
    streamed = mode in STREAMS
    if streamed and (whole or not chain.streams_ordered):
        assert _merged(found) == _merged(expected)
    else:
        assert plain(found) == plain(expected)
    if mode in (watching.invoke, watching.ainvoke, *STREAMS) and (
        chain.streams_ordered if streamed else chain.ordered
    ):
        assert recorders[1].events == recorders[0].events
    else:
        assert Counter(recorders[1].events) == Counter(recorders[0].events)
    runs = 1 if mode in SINGLE else 2
    (session,) = sessions
    counts = session.final
    assert counts is not None
    assert (counts.planned, counts.claimed) == (chain.planned * runs, chain.planned * runs)
    assert counts.unplanned == chain.unplanned * runs


def _merged(chunks: list[Any]) -> Any:
    """Parallel branches stream in any order; what they add up to is the same."""
    merged = chunks[0]
    for chunk in chunks[1:]:
        merged = merged + chunk
    return plain(dict(merged) if isinstance(merged, dict) else merged)


@pytest.fixture(scope="module")
def scripted() -> ScriptedEngine:
    return ScriptedEngine(lambda prompt: prompt[::-1][:40])


@pytest.fixture(scope="module")
def llm(scripted: ScriptedEngine) -> Iterator[ChatParrot]:
    with serving(scripted) as url:
        yield ChatParrot(base_url=url, temperature=0)


@pytest.mark.parametrize("mode", SINGLE + DOUBLE)
@pytest.mark.parametrize("name", CHAINS)
def test_compiled_and_uncompiled_are_the_same(
    name: str, mode: Callable[..., Any], llm: ChatParrot
) -> None:
    assert_the_same(CHAINS[name], llm, mode)


@pytest.mark.model
@pytest.mark.parametrize(
    "mode", [watching.invoke, watching.ainvoke, watching.batch, watching.stream, watching.astream]
)
@pytest.mark.parametrize("name", ["refine", "map reduce", "parallel", "a lambda in between"])
def test_compiled_and_uncompiled_are_the_same_on_the_real_engine(
    name: str, mode: Callable[..., Any], base_url: str
) -> None:
    llm = ChatParrot(base_url=base_url, temperature=0, max_tokens=12)
    assert_the_same(CHAINS[name], llm, mode, whole=True)


@pytest.mark.model
def test_dependent_calls_start_before_the_client_asks(base_url: str, engine: Engine) -> None:
    llm = ChatParrot(base_url=base_url, temperature=0, max_tokens=12)
    sessions: list[PlannedSession] = []
    compile(map_reduce(llm), on_session=sessions.append).invoke({"texts": ["Wind.", "Sand."]})
    events = sessions[0].events()
    when = {(event.kind, event.name): event.seq for event in events}
    for call in sessions[0].plan.calls:
        assert when["call_started", call.id] < when["call_claimed", call.id]
    reduce = sessions[0].plan.calls[-1]
    ready = when["variable_ready", sessions[0].plan.calls[0].output]
    assert ready < when["call_started", reduce.id], "and only when its inputs were there"
    assert engine.stats().running == 0


def shifting(llm: ChatParrot) -> Runnable[Any, Any]:
    """A lambda changes a text between two calls, where planning can't see it."""

    def shift(value: dict[str, Any]) -> str:
        value["style"].append("rude")
        return "shifted"

    return (
        RunnablePassthrough.assign(draft=ask("Name a {style} animal.", llm))
        .assign(note=RunnableLambda(shift))
        .assign(final=ask("{style}: what does it eat? {draft}", llm))
        .pick("final")
    )


def test_a_wrong_prediction_is_cancelled_and_counted(
    llm: ChatParrot, scripted: ScriptedEngine
) -> None:
    sessions: list[PlannedSession] = []
    expected = shifting(llm).invoke({"style": ["kind"]})
    draft = scripted.script("Name a ['kind'] animal.")
    scripted.hold(f"['kind']: what does it eat? {draft}")
    compiled = compile(shifting(llm), on_session=sessions.append)
    assert compiled.invoke({"style": ["kind"]}) == expected
    counts = sessions[0].final
    assert counts is not None
    assert (counts.planned, counts.claimed, counts.unplanned, counts.cancelled) == (2, 1, 1, 1)
    assert eventually(lambda: scripted.running == 0)


@pytest.mark.model
def test_a_wrong_prediction_on_the_real_engine(base_url: str) -> None:
    llm = ChatParrot(base_url=base_url, temperature=0, max_tokens=12)
    sessions: list[PlannedSession] = []
    expected = shifting(llm).invoke({"style": ["kind"]})
    compiled = compile(shifting(llm), on_session=sessions.append)
    assert compiled.invoke({"style": ["kind"]}) == expected
    counts = sessions[0].final
    assert counts is not None
    assert (counts.planned, counts.claimed, counts.unplanned) == (2, 1, 1)
    assert counts.cancelled + counts.unclaimed == 1


@pytest.mark.parametrize(
    "mode", [watching.invoke, watching.ainvoke, watching.stream, watching.astream]
)
def test_errors_are_the_same(mode: Callable[..., Any], llm: ChatParrot) -> None:
    original = {"x": ask("say {word}", llm)} | ask("FAIL {x}", llm)
    recorders = Recorder(), Recorder()
    with pytest.raises(Exception, match="do not fit") as expected:
        mode(original, {"word": "hi"}, {"callbacks": [recorders[0]]})
    with pytest.raises(Exception, match="do not fit") as found:
        mode(compile(original), {"word": "hi"}, {"callbacks": [recorders[1]]})
    assert (found.type, str(found.value)) == (expected.type, str(expected.value))
    assert recorders[1].events == recorders[0].events


def test_batch_returns_exceptions_as_the_original(llm: ChatParrot) -> None:
    original = ask("{word}", llm)
    words = [{"word": "one"}, {"word": "FAIL"}, {"word": "three"}]
    expected = original.batch(words, return_exceptions=True)
    found = compile(original).batch(words, return_exceptions=True)
    assert [found[0], found[2]] == [expected[0], expected[2]]
    assert type(found[1]) is type(expected[1])


def test_missing_inputs_raise_what_the_original_raises(llm: ChatParrot) -> None:
    with pytest.raises(KeyError, match="missing variables"):
        compile(ask("{word} {other}", llm)).invoke({"word": "x"})


def test_a_rate_limited_or_cached_model_is_not_planned(llm: ChatParrot) -> None:
    from langchain_core.caches import InMemoryCache

    limited = llm.model_copy(update={"rate_limiter": InMemoryRateLimiter(requests_per_second=99)})
    cached = llm.model_copy(update={"cache": InMemoryCache()})
    for model, reason in ((limited, "has a rate limiter"), (cached, "has a cache")):
        sessions: list[PlannedSession] = []
        compiled = compile(ask("{word}", model), on_session=sessions.append)
        assert reason in compiled.explain({"word": "x"})
        assert compiled.invoke({"word": "abc"}) == "cba"
        assert sessions == []


def test_planning_runs_no_code_of_the_user(llm: ChatParrot) -> None:
    called: list[str] = []

    class Loud:
        def __str__(self) -> str:
            called.append("str")
            return "loud"

    prompt = ChatPromptTemplate.from_template("{x}").partial(y=lambda: called.append("partial"))
    chain = RunnablePassthrough.assign(x=RunnableLambda(lambda _: called.append("lambda"))) | prompt
    compile(chain | llm).explain({"x": 1})
    compile(ask("{x}", llm)).explain({"x": Loud()})
    assert called == []


def test_closing_a_stream_early_frees_everything(llm: ChatParrot, scripted: ScriptedEngine) -> None:
    """Straight from the model: behind a parser, LangChain reads a closed stream to its end."""
    sessions: list[PlannedSession] = []
    scripted.hold("say it")
    chain = submitting(ChatPromptTemplate.from_template("say {x}") | llm, sessions.append)
    stream = chain.stream({"x": "it"})
    assert next(stream).content == "t"
    stream.close()
    assert eventually(lambda: scripted.running == 0)
    assert sessions[0].view().closed


async def test_cancelling_a_run_frees_everything(llm: ChatParrot, scripted: ScriptedEngine) -> None:
    sessions: list[PlannedSession] = []
    scripted.hold("say what")
    compiled = submitting(ask("say {x}", llm), sessions.append)
    task = asyncio.create_task(compiled.ainvoke({"x": "what"}))
    await asyncio.to_thread(eventually, lambda: scripted.running == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert eventually(lambda: scripted.running == 0)
    assert sessions[0].view().closed


def test_a_backend_that_refuses_the_plan_costs_nothing(
    scripted: ScriptedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    from parrot_backend.serving.limits import Limits

    with serving(ScriptedEngine(), limits=Limits(calls_per_session=1)) as url:
        llm = ChatParrot(base_url=url, temperature=0, max_retries=0)
        chain = CHAINS["two steps"]
        assert compile(chain.build(llm)).invoke(chain.input) == chain.build(llm).invoke(chain.input)
    assert "running without it" in caplog.text


def test_a_compiled_runnable_is_a_runnable(llm: ChatParrot) -> None:
    original = map_reduce(llm)
    compiled = compile(original)
    assert compiled.get_name() == original.get_name()
    assert compiled.get_input_jsonschema() == original.get_input_jsonschema()
    assert compiled.get_graph().draw_mermaid() == original.get_graph().draw_mermaid()
    longer = compiled | (lambda text: text[:3])
    assert longer.invoke({"texts": ["a"]}) == original.invoke({"texts": ["a"]})[:3]
    assert compiled.with_config(tags=["x"]).invoke({"texts": ["a"]}) == original.invoke(
        {"texts": ["a"]}
    )


def test_explain_tells_calls_and_sharing(llm: ChatParrot) -> None:
    told = compile(map_reduce(llm)).explain({"texts": ["Sun.", "Moon."]})
    assert "3 planned calls" in told
    assert "call-1, call-2 (2 calls): [system] You summarize. [user] Summarize: {text.*}" in told
    assert "2 calls (call-1, call-2): [system] You summarize. [user] Summarize:" in told


def test_what_langchain_makes_a_runnable_of_is_compiled(llm: ChatParrot) -> None:
    assert compile(lambda word: word.upper()).invoke("a") == "A"  # type: ignore[attr-defined]
    both = {"one": ask("1 {word}", llm), "two": ask("2 {word}", llm)}
    assert compile(both).invoke({"word": "a"}) == {"one": "a 1", "two": "a 2"}
    with pytest.raises(TypeError, match="Expected a Runnable, callable or dict"):
        compile(3)  # type: ignore[arg-type]


def test_what_is_compiled_already_is_not_compiled_twice(llm: ChatParrot) -> None:
    sessions: list[PlannedSession] = []
    once = compile(map_reduce(llm), objective="throughput", on_session=sessions.append)
    twice = compile(once)
    assert twice.bound is once.bound
    assert twice.invoke({"texts": ["a", "b"]}) == once.invoke({"texts": ["a", "b"]})
    views = [session.final for session in sessions if session.final]
    assert [(view.planned, view.claimed) for view in views] == [(3, 3)] * 2
    assert twice.objective == "throughput"
    assert compile(once, objective="latency").objective == "latency"


@pytest.mark.parametrize("mode", SINGLE + DOUBLE)
def test_a_compiled_chain_inside_another_plans_its_own_calls(
    mode: Callable[..., Any], llm: ChatParrot
) -> None:
    inner, outer = list[PlannedSession](), list[PlannedSession]()
    first, second = ask("First {x}", llm), ask("Then {y}", llm)
    part = submitting(first, inner.append)
    compiled = submitting(part | second, outer.append)
    told = compiled.explain({"x": "it"})
    assert "is compiled by itself and plans its own calls" in told
    assert "Compile only the whole chain" in told
    recorders = Recorder(), Recorder()
    value: Any = {"x": "it"} if mode in SINGLE else [{"x": "it"}, {"x": "at"}]
    nested = first.with_config({}) | second  # a sequence's own steps would become the outer one's
    expected = mode(nested, value, {"callbacks": [recorders[0]]})
    assert plain(mode(compiled, value, {"callbacks": [recorders[1]]})) == plain(expected)
    assert Counter(recorders[1].events) == Counter(recorders[0].events)
    for sessions in (inner, outer):
        counts = [session.final for session in sessions if session.final]
        calls = 1 if mode in SINGLE else 2
        assert sum(each.planned for each in counts) == calls
        assert sum(each.claimed for each in counts) == calls
        assert sum(each.unplanned for each in counts) == 0


def test_join_texts_joins_and_names_what_it_wants() -> None:
    assert join_texts("-").invoke(["a", "b"]) == "a-b"
    assert asyncio.run(join_texts().ainvoke(["a", "b"])) == "a\n\nb"
    with pytest.raises(TypeError, match="StrOutputParser"):
        join_texts().invoke([1])  # type: ignore[list-item]


def test_several_choices_come_whole_or_not_at_all(llm: ChatParrot) -> None:
    (result,) = llm.generate([[HumanMessage("SEED")]], n=2).generations
    assert len(result) == 2
    with pytest.raises(ValueError, match="n is 2"):
        next(llm.stream("abc", n=2))
