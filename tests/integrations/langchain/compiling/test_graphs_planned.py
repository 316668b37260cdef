"""What is planned of a graph: chains in nodes when they start, and what is sent as one."""

import asyncio
import operator
import random
import threading
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import MemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import CachePolicy, Command, interrupt
from pydantic import BaseModel
from typing_extensions import TypedDict

from parrot_integrations.langchain import ChatParrot, compile
from parrot_integrations.planning.session import PlannedSession
from tests.doubles import ScriptedEngine
from tests.integrations.langchain.compiling.chains import ask
from tests.integrations.langchain.compiling.graphs import GRAPHS, Topics, as_fact, fan_out, route
from tests.servers import eventually, serving


@pytest.fixture
def scripted() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def llm(scripted: ScriptedEngine) -> Iterator[ChatParrot]:
    with serving(scripted) as url:
        yield ChatParrot(base_url=url, temperature=0)


def counts(sessions: list[PlannedSession]) -> tuple[int, int, int]:
    (session,) = sessions
    assert session.final is not None
    return session.final.planned, session.final.claimed, session.final.unplanned


@pytest.mark.parametrize("size", [6, 21])
def test_what_is_sent_is_one_plan(size: int, llm: ChatParrot) -> None:
    sessions: list[PlannedSession] = []
    native = fan_out(llm).compile()
    planned = compile(native, on_session=sessions.append)
    value = {"topics": [f"topic {i}" for i in range(size)]}
    expected = native.invoke(value)
    assert planned.invoke(value) == expected
    assert asyncio.run(planned.ainvoke(value)) == expected
    assert len(sessions) == 2
    for session in sessions:
        submitted, claimed, _ = counts([session])
        assert submitted == claimed >= size
        groups = {group.name: len(group.calls) for group in session.graph().groups}
        assert groups["outputs-call-1"] == size  # the outputs of the first program


def test_all_that_is_sent_starts_at_once_and_not_as_threads_become_free(
    llm: ChatParrot, scripted: ScriptedEngine
) -> None:
    topics = [f"topic {i}" for i in range(40)]  # LangGraph has 32 threads at most
    prompts = [f"A fact about {topic}." for topic in topics]
    for prompt in prompts:
        scripted.hold(prompt)
    planned = compile(fan_out(llm).compile())
    run = threading.Thread(target=planned.invoke, args=({"topics": topics},))
    run.start()
    started = eventually(lambda: set(prompts) <= set(scripted.started))
    for held in scripted.held.values():
        held.set()
    run.join(timeout=30)
    assert started
    assert sorted(scripted.started) == sorted({*scripted.started})  # none twice


def test_what_is_sent_starts_while_the_sender_s_superstep_goes_on(
    llm: ChatParrot, scripted: ScriptedEngine
) -> None:
    """Two nodes run side by side; one has sent its work, the other is not done."""
    graph = StateGraph(Topics)
    two = ask("A fact about {topic}.", llm) | ask("More {x}", llm) | as_fact
    graph.add_node("worker", two)
    graph.add_node("send", lambda state: {"facts": []})
    graph.add_node("slow", ask("Slow {topics}", llm) | as_fact)
    graph.add_edge(START, "send")
    graph.add_edge(START, "slow")
    graph.add_conditional_edges("send", route, ["worker"])
    held = scripted.hold("Slow ['sun', 'moon']")
    planned = compile(graph.compile())
    run = threading.Thread(target=planned.invoke, args=({"topics": ["sun", "moon"]},))
    run.start()
    prompts = {"A fact about sun.", "A fact about moon."}
    started = eventually(lambda: prompts <= set(scripted.started))
    held.set()
    run.join(timeout=30)
    assert started


def test_nothing_that_an_interrupt_is_before_is_asked_ahead(
    llm: ChatParrot, scripted: ScriptedEngine
) -> None:
    native, planned = (
        fan_out(llm).compile(checkpointer=MemorySaver(), interrupt_before=["worker"])
        for _ in range(2)
    )
    planned = compile(planned)
    config: Any = {"configurable": {"thread_id": "1"}}
    value = {"topics": ["sun", "moon"]}
    assert planned.invoke(value, config) == native.invoke(value, config)
    assert scripted.started == []
    assert planned.invoke(None, config) == native.invoke(None, config)


def test_interrupts_inside_nodes_are_resumed(llm: ChatParrot, scripted: ScriptedEngine) -> None:
    class State(TypedDict, total=False):
        topic: str
        asked: str
        text: str

    def approve(state: State) -> State:
        return {"asked": interrupt({"question": state["text"]})}

    def build() -> Any:
        graph = StateGraph(State)
        two = ask("Draft {topic}", llm) | ask("Improve {x}", llm)
        graph.add_node("draft", two | (lambda text: {"text": text}))
        graph.add_node("approve", approve)
        last = ask("Finish: {asked}", llm) | ask("Polish: {x}", llm)
        graph.add_node("finish", last | (lambda text: {"text": text}))
        for start, end in ((START, "draft"), ("draft", "approve"), ("approve", "finish")):
            graph.add_edge(start, end)
        return graph.compile(checkpointer=MemorySaver())

    sessions: list[PlannedSession] = []
    native, planned = build(), compile(build(), on_session=sessions.append)
    config: Any = {"configurable": {"thread_id": "1"}}
    told = []
    for graph in (native, planned):
        stopped = graph.invoke({"topic": "rain"}, config)
        told.append(stopped["__interrupt__"][0].value)
        told.append(graph.get_state(config).next)
        told.append(graph.invoke(Command(resume="yes"), config))
    assert told[3:] == told[:3]
    assert [counts([session]) for session in sessions] == [(2, 2, 0)] * 2


def test_a_node_with_a_cache_is_not_asked_ahead(llm: ChatParrot, scripted: ScriptedEngine) -> None:
    graph = StateGraph(Topics)
    graph.add_node(
        "worker", ask("A fact about {topic}.", llm) | as_fact, cache_policy=CachePolicy()
    )
    graph.add_conditional_edges(START, route, ["worker"])
    planned = compile(graph.compile(cache=InMemoryCache()))
    first = planned.invoke({"topics": ["sun", "moon"]})
    assert planned.invoke({"topics": ["sun", "moon"]}) == first
    assert len(scripted.started) == 2


def test_a_graph_in_a_node_is_part_of_the_run(llm: ChatParrot) -> None:
    sessions: list[PlannedSession] = []
    case = GRAPHS["supervisor"]
    planned = compile(case.build(llm).compile(), on_session=sessions.append)
    planned.invoke(case.input)
    submitted, claimed, _ = counts(sessions)
    assert submitted == claimed >= 2


def test_a_compiled_graph_may_be_a_node(llm: ChatParrot) -> None:
    class Outer(TypedDict, total=False):
        topics: list[str]
        facts: Annotated[list[str], operator.add]

    sessions: list[PlannedSession] = []
    inner = fan_out(llm).compile()
    results = []
    for node in (inner, compile(inner, on_session=sessions.append)):
        graph = StateGraph(Outer)
        graph.add_node("inner", node)
        graph.add_edge(START, "inner")
        results.append(graph.compile().invoke({"topics": ["sun", "moon"]}))
        results.append([*graph.compile().stream({"topics": ["sun"]}, subgraphs=True)])
    assert results[0] == results[2]
    assert len(results[1]) == len(results[3])
    submitted, claimed, _ = counts(sessions[:1])
    assert submitted == claimed >= 2


def test_copies_are_planned_too(llm: ChatParrot) -> None:
    sessions: list[PlannedSession] = []
    planned = compile(fan_out(llm).compile(), on_session=sessions.append)
    planned.with_config(tags=["mine"]).invoke({"topics": ["sun", "moon"]})
    submitted, claimed, _ = counts(sessions)
    assert submitted == claimed >= 2


def functions_as_nodes(llm: ChatParrot, asynchronous: bool) -> Any:
    def worker(state: dict[str, Any]) -> dict[str, Any]:
        draft = llm.invoke(f"A fact about {state['topic']}.").text
        better = llm.invoke(f"Improve: {draft}")
        return {"facts": [better.text]}

    async def aworker(state: dict[str, Any], config: RunnableConfig) -> dict[str, Any]:
        draft = await llm.ainvoke(f"A fact about {state['topic']}.", config)
        better = await llm.ainvoke(f"Improve: {draft.text}", config)
        return {"facts": [better.text]}

    graph = StateGraph(Topics)
    graph.add_node("worker", aworker if asynchronous else worker)
    graph.add_conditional_edges(START, route, ["worker"])
    return graph.compile()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_models_inside_functions_are_planned(asynchronous: bool, llm: ChatParrot) -> None:
    sessions: list[PlannedSession] = []
    native = functions_as_nodes(llm, asynchronous)
    planned = compile(native, on_session=sessions.append)
    value = {"topics": ["sun", "moon", "rain"]}
    assert asyncio.run(planned.ainvoke(value)) == asyncio.run(native.ainvoke(value))
    assert counts(sessions) == (6, 6, 0)


def test_a_state_of_a_class_is_read(llm: ChatParrot) -> None:
    class Held(BaseModel):
        topic: str
        text: str = ""

    def write(state: Held) -> dict[str, str]:
        draft = llm.invoke(f"Draft {state.topic}")
        return {"text": llm.invoke(f"Improve {draft.text}").text}

    graph = StateGraph(Held)
    graph.add_node("write", write)
    graph.add_edge(START, "write")
    native, sessions = graph.compile(), list[PlannedSession]()
    planned = compile(native, on_session=sessions.append)
    assert planned.invoke({"topic": "rain"}) == native.invoke({"topic": "rain"})
    assert counts(sessions) == (2, 2, 0)


def test_a_graph_is_explained(llm: ChatParrot, scripted: ScriptedEngine) -> None:
    graph: Any = compile(GRAPHS["side by side"].build(llm).compile())
    plan = graph.plan([{"topics": ["sun"]}])
    assert [call.messages[0].role for call in plan.calls] == ["user", "user"]
    assert "planned when it starts" in plan.notes["node 'longer'"]
    assert "Pros of" in graph.explain({"topics": ["sun"]})
    assert scripted.started == []
    assert "planned calls submitted" in graph.explain({"topics": ["sun"]}, analyze=True)


def test_messages_are_explained_as_their_reducer_makes_them(llm: ChatParrot) -> None:
    graph: Any = compile(GRAPHS["model in a function"].build(llm).compile())
    given = HumanMessage("Hi")
    for messages in ([given], given, [("human", "Hi")]):
        (call,) = graph.plan([{"messages": messages}]).calls
        assert call.messages[0].content[0].text == "Hi"
    assert given.id is None


def test_what_is_compiled_without_running_ahead_is_not_planned(llm: ChatParrot) -> None:
    sessions: list[PlannedSession] = []
    planned = compile(fan_out(llm).compile(), on_session=sessions.append)
    native = compile(planned, ahead=False)
    value = {"topics": ["sun", "moon"]}
    assert native.invoke(value) == planned.invoke(value)
    assert len(sessions) == 1


def test_the_limit_of_a_configuration_is_kept(llm: ChatParrot, scripted: ScriptedEngine) -> None:
    prompts = [f"A fact about {topic}." for topic in GRAPHS["fan out"].input["topics"]]
    for prompt in prompts:
        scripted.hold(prompt)
    planned = compile(fan_out(llm).compile())
    config: Any = {"max_concurrency": 2}
    run = threading.Thread(target=planned.invoke, args=(GRAPHS["fan out"].input, config))
    run.start()
    assert eventually(lambda: scripted.running == 2)
    assert not eventually(lambda: scripted.running > 2, timeout=0.3)
    for held in scripted.held.values():
        held.set()
    run.join(timeout=30)


def test_a_loop_of_single_calls_costs_nothing(llm: ChatParrot) -> None:
    """What a task leaves unknown holds nobody up behind it."""

    class State(TypedDict, total=False):
        text: str
        rounds: Annotated[int, operator.add]

    def opaque(text: str) -> dict[str, Any]:
        return {"text": f"{len(text)} {random.choice('a')}", "rounds": 1}

    graph = StateGraph(State)
    graph.add_node("write", ask("Go on: {text}", llm) | opaque)
    graph.add_node("check", lambda state: {"text": llm.invoke(f"Check {state['text']}").text})
    graph.add_edge(START, "write")
    graph.add_edge("write", "check")
    graph.add_conditional_edges("check", lambda s: "write" if s["rounds"] < 4 else "__end__")
    sessions: list[PlannedSession] = []
    native = graph.compile()
    planned = compile(native, on_session=sessions.append)
    assert planned.invoke({"text": "Once"}) == native.invoke({"text": "Once"})
    assert sessions == []


def test_a_graph_in_a_chain_is_a_break(llm: ChatParrot) -> None:
    chain = RunnableLambda(lambda topics: {"topics": topics}) | fan_out(llm).compile()
    compiled = compile(chain)
    assert compiled.invoke(["sun"]) == chain.invoke(["sun"])
    (stop,) = compiled.plan([["sun"]]).breaks
    assert "Give the graph itself to compile()" in stop.remedy
