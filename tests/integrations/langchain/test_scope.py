"""The swapped class alone tells which calls are siblings, and of which thread."""

import asyncio
import operator
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import wrap_model_call
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AnyMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableParallel
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.types import Send

from parrot_backend.wire.views import GraphView
from parrot_integrations.client import ParrotClient
from parrot_integrations.langchain import ChatParrot, ParrotLLM, compile, parrot_session, task_group
from tests.doubles import ScriptedEngine
from tests.integrations.langchain.compiling.chains import CHAINS, ask
from tests.servers import serving


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(ScriptedEngine(lambda prompt: prompt[::-1][:40])) as url:
        yield url


@pytest.fixture
def llm(url: str) -> ChatParrot:
    return ChatParrot(base_url=url, temperature=0)


@pytest.fixture
def client(url: str) -> Iterator[ParrotClient]:
    with ParrotClient(url) as client:
        yield client


def sizes(graph: GraphView) -> list[tuple[int | None, int]]:
    """Of each task group, how many calls were announced, and how many came."""
    return [(group.size, len(group.calls)) for group in graph.groups]


def _batch(runnable: Any, inputs: list[Any]) -> Any:
    return runnable.batch(inputs)


def _abatch(runnable: Any, inputs: list[Any]) -> Any:
    return asyncio.run(runnable.abatch(inputs))


def _each(runnable: Any, inputs: list[Any]) -> Any:
    return runnable.map().invoke(inputs)


def _limited(runnable: Any, inputs: list[Any]) -> Any:
    return runnable.batch(inputs, {"max_concurrency": 1})


@pytest.mark.parametrize("run", [_batch, _abatch, _each, _limited])
@pytest.mark.parametrize(
    "build", [lambda llm: llm, lambda llm: ask("Say {x}", llm.bind(stop=["z"]))]
)
def test_a_batch_is_a_task_group(build: Any, run: Any, llm: ChatParrot) -> None:
    with parrot_session() as session:
        run(build(llm), ["a", "b", "c"])
        run(build(llm), ["alone"])
    (graph,) = session.graphs()
    assert sizes(graph) == [(3, 3)]
    assert len(graph.calls) == 4


def test_each_step_of_a_batch_of_a_chain_is_a_task_group(llm: ChatParrot) -> None:
    with parrot_session() as session:
        (ask("Say {x}", llm) | ask("Again {x}", llm)).batch(["a", "b"])
    (graph,) = session.graphs()
    assert sizes(graph) == [(2, 2), (2, 2)]


def test_one_generate_is_a_task_group(llm: ChatParrot) -> None:
    prompts = [[HumanMessage(text)] for text in "abc"]
    for generate in (llm.generate, lambda prompts: asyncio.run(llm.agenerate(prompts))):
        with parrot_session() as session:
            generate(prompts)
        (graph,) = session.graphs()
        assert sizes(graph) == [(3, 3)]


def test_a_batch_of_texts_is_a_task_group(url: str) -> None:
    with parrot_session() as session:
        ParrotLLM(base_url=url).batch(["a", "b", "c"])
    (graph,) = session.graphs()
    assert sizes(graph) == [(3, 3)]


def test_models_that_are_branches_themselves_are_siblings(llm: ChatParrot) -> None:
    with parrot_session() as session:
        RunnableParallel(hot=llm.bind(temperature=1), cold=llm).invoke("hi")
        asyncio.run(RunnableParallel(hot=llm.bind(temperature=1), cold=llm).ainvoke("ho"))
    (graph,) = session.graphs()
    assert sizes(graph) == [(None, 2), (None, 2)]


def test_plain_python_states_a_group_itself(llm: ChatParrot) -> None:
    async def both() -> None:
        with task_group(2):
            await asyncio.gather(llm.ainvoke("a"), llm.ainvoke("b"))

    with parrot_session() as session:
        asyncio.run(both())
    (graph,) = session.graphs()
    assert sizes(graph) == [(2, 2)]


class Documents(TypedDict):
    documents: list[str]
    summaries: Annotated[list[str], operator.add]
    result: str


def map_reduce(llm: ChatParrot) -> Any:
    """LangGraph's own example of a fan-out: a task for each document, then one for all."""
    graph = StateGraph(Documents)
    graph.add_node(
        "map", lambda task: {"summaries": [ask("Sum {x}", llm).invoke(task["document"])]}
    )
    graph.add_node("reduce", lambda state: {"result": llm.invoke(str(state["summaries"])).text})
    graph.add_conditional_edges(
        START, lambda state: [Send("map", {"document": d}) for d in state["documents"]], ["map"]
    )
    graph.add_edge("map", "reduce")
    graph.add_edge("reduce", END)
    return graph.compile()


def sent_out(llm: ChatParrot) -> Any:
    """Whole graphs that are sent out side by side."""
    inner = map_reduce(llm)

    def work(task: Any) -> Any:
        return {"summaries": [inner.invoke({"documents": task["documents"]})["result"]]}

    graph = StateGraph(Documents)
    graph.add_node("inner", work)
    graph.add_conditional_edges(
        START,
        lambda state: [Send("inner", {"documents": [d, d + d]}) for d in state["documents"]],
        ["inner"],
    )
    return graph.compile()


@pytest.mark.parametrize(
    "run", [lambda app, x: app.invoke(x), lambda app, x: asyncio.run(app.ainvoke(x))]
)
def test_a_superstep_of_a_graph_is_a_task_group(
    run: Any, llm: ChatParrot, client: ParrotClient
) -> None:
    """Without a word in the application: the run of the graph is a session."""
    before = {view.id for view in client.sessions()}
    run(map_reduce(llm), {"documents": ["one", "two", "three"]})
    (session,) = [view for view in client.sessions() if view.id not in before]
    graph = client.graph(session.id)
    assert len(graph.calls) == 4
    (group,) = graph.groups
    assert group.calls == ["request/1", "request/2", "request/3"]


def test_tasks_at_the_same_place_of_nested_graphs_are_siblings(llm: ChatParrot) -> None:
    with parrot_session() as session:
        sent_out(llm).invoke({"documents": ["one", "two"]})
    (graph,) = session.graphs()
    assert sizes(graph) == [(None, 4), (None, 2)]


class Chat(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def chatting(llm: ChatParrot, turns: int) -> Any:
    def model(state: Chat) -> Any:
        return {"messages": [llm.invoke(state["messages"])]}

    def tool(state: Chat) -> Any:
        return {"messages": [HumanMessage("and more")]}

    graph = StateGraph(Chat)
    graph.add_node("model", model)
    graph.add_node("tool", tool)
    graph.add_edge(START, "model")
    graph.add_conditional_edges(
        "model", lambda state: "tool" if len(state["messages"]) < 2 * turns else END, ["tool", END]
    )
    graph.add_edge("tool", "model")
    return graph.compile()


def test_an_agent_s_turns_are_one_conversation_of_its_thread(
    llm: ChatParrot, client: ParrotClient
) -> None:
    config = {"metadata": {"thread_id": "user-7"}}
    chatting(llm, 3).invoke({"messages": [HumanMessage("hi")]}, config)
    chatting(llm, 1).invoke({"messages": [HumanMessage("other")]}, config)
    (session,) = client.sessions("user-7")
    graph = client.graph(session.id)
    assert graph.conversations == [["request/1", "request/2", "request/3"]]
    assert graph.groups == [], "a turn has no siblings"


@wrap_model_call
def one_round(request: Any, handler: Any) -> Any:
    """The model must call tools once, and then answer."""
    asked = any(isinstance(message, ToolMessage) for message in request.messages)
    return handler(request.override(tool_choice="none" if asked else "any"))


@pytest.mark.model
def test_a_real_agent_s_turns_are_one_conversation(base_url: str) -> None:
    called: list[str] = []

    @tool
    def weather(city: str) -> str:
        """Get the weather in a city."""
        called.append(city)
        return f"It is sunny in {city}."

    llm = ChatParrot(base_url=base_url, temperature=0, max_tokens=48)
    agent = create_agent(llm, [weather], middleware=[one_round])
    with parrot_session() as session:
        agent.invoke({"messages": [HumanMessage("What is the weather in Paris?")]})
    (graph,) = session.graphs()
    assert graph.conversations == [["request/1", "request/2"]]
    first, second = graph.calls
    assert second.cached_tokens > first.prompt_tokens // 2, "a turn starts where the last one ended"
    assert called
    assert first.queued is not None
    assert first.started is not None
    assert first.first_token is not None
    assert first.queued <= first.started <= first.first_token


def test_streams_belong_as_well(llm: ChatParrot) -> None:
    def node(task: Any) -> Any:
        return {"summaries": ["".join(chunk.text for chunk in llm.stream(task["document"]))]}

    graph = StateGraph(Documents)
    graph.add_node("map", node)
    graph.add_conditional_edges(
        START, lambda state: [Send("map", {"document": d}) for d in state["documents"]], ["map"]
    )
    with parrot_session() as session:
        graph.compile().invoke({"documents": ["one", "two"]})
    (found,) = session.graphs()
    assert sizes(found) == [(None, 2)]


def test_a_session_has_its_objective_and_tags_and_so_have_compiled_runs_in_it(
    llm: ChatParrot,
) -> None:
    chain = CHAINS["two steps"]
    with parrot_session(tags=["outer"]), parrot_session(objective="throughput", tags=["in"]) as s:
        llm.invoke("plain")
        compile(chain.build(llm)).invoke(chain.input)
    compiled, plain = s.views()
    assert (compiled.tags, compiled.objective, compiled.planned) == (
        ["outer", "in"],
        "throughput",
        2,
    )
    assert (plain.tags, plain.objective, plain.unplanned) == (["outer", "in"], "throughput", 1)
    assert {c.objective for graph in s.graphs() for c in graph.calls} == {"throughput"}


async def test_concurrent_sessions_do_not_mix(llm: ChatParrot) -> None:
    async def run(text: str) -> int:
        with parrot_session() as session:
            await asyncio.gather(*(llm.ainvoke(f"{text} {i}") for i in range(3)))
            await asyncio.to_thread(llm.invoke, text)
        return sum([view.unplanned for view in await session.aviews()])

    assert await asyncio.gather(run("a"), run("b")) == [4, 4]


def test_nothing_of_it_is_seen(llm: ChatParrot) -> None:
    """Neither the cache key nor what callbacks get differs inside a session."""

    class Seen(BaseCallbackHandler):
        def __init__(self) -> None:
            self.calls: list[Any] = []

        def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
            kwargs = {k: v for k, v in kwargs.items() if k not in ("run_id", "parent_run_id")}
            self.calls.append((serialized, messages, kwargs))

    def record() -> tuple[str, list[Any]]:
        seen = Seen()
        llm.batch(["a", "b"], {"callbacks": [seen]})
        return llm._get_llm_string(), sorted(seen.calls, key=str)

    outside = record()
    with parrot_session(tags=["x"], objective="throughput"), task_group(2):
        assert record() == outside
