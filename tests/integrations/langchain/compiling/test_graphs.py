"""A compiled graph is the graph it was: same results, streams, events, state and errors."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from langgraph.checkpoint.memory import MemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph.state import CompiledStateGraph

from parrot_integrations.langchain import ChatParrot, compile
from tests.doubles import ScriptedEngine
from tests.integrations.langchain.compiling import watching
from tests.integrations.langchain.compiling.graphs import GRAPHS, AnyGraph, GraphCase
from tests.integrations.langchain.compiling.watching import Recorder
from tests.integrations.langchain.compiling.watching_graphs import MODES, seen, streamed, thread
from tests.servers import serving


@pytest.fixture(scope="module")
def llm() -> Iterator[ChatParrot]:
    with serving(ScriptedEngine()) as url:
        yield ChatParrot(base_url=url, temperature=0)


def both(case: GraphCase, llm: ChatParrot, **options: Any) -> tuple[AnyGraph, AnyGraph]:
    """The graph as it is and compiled, each with its own state."""
    native, planned = (
        case.build(llm).compile(**{name: make() for name, make in options.items()})
        for _ in range(2)
    )
    return native, compile(planned)


@pytest.mark.parametrize("name", GRAPHS)
def test_results_are_equal(name: str, llm: ChatParrot) -> None:
    case = GRAPHS[name]
    native, planned = both(case, llm)
    for mode in (watching.invoke, watching.ainvoke):
        assert seen(mode(planned, case.input, {})) == seen(mode(native, case.input, {}))
    batches = (planned.batch([case.input] * 2), native.batch([case.input] * 2))
    assert seen(batches[0]) == seen(batches[1])


@pytest.mark.parametrize(
    ("name", "mode"), [*((name, MODES) for name in GRAPHS), *(("supervisor", m) for m in MODES)]
)
def test_streams_are_equal(name: str, mode: Any, llm: ChatParrot) -> None:
    case = GRAPHS[name]
    native, planned = both(case, llm, checkpointer=MemorySaver)
    kwargs: dict[str, Any] = {"stream_mode": mode, "subgraphs": mode is MODES}
    told = []
    for graph in (native, planned):
        told.append(streamed(list(graph.stream(case.input, thread(), **kwargs))))
        told.append(streamed(asyncio.run(collect(graph, case.input, thread(), **kwargs))))
    assert told[2:] == told[:2]


async def collect(graph: AnyGraph, value: Any, config: Any, **kwargs: Any) -> list[Any]:
    return [item async for item in graph.astream(value, config, **kwargs)]


@pytest.mark.parametrize("name", GRAPHS)
def test_events_are_equal(name: str, llm: ChatParrot) -> None:
    case = GRAPHS[name]
    native, planned = both(case, llm)
    for mode in (watching.invoke, watching.ainvoke):
        recorders = Recorder(whole=True), Recorder(whole=True)
        for graph, recorder in zip((native, planned), recorders, strict=True):
            mode(graph, case.input, {"callbacks": [recorder]})
        events = [sorted(map(seen, recorder.events)) for recorder in recorders]
        assert events[1] == events[0]
    told = [
        [
            event
            for event in watching.astream_events(graph, case.input, {})
            if "stream" not in event[0]
        ]
        for graph in (native, planned)
    ]
    assert told[1] == told[0]


@pytest.mark.parametrize("mode", [watching.invoke, watching.ainvoke])
def test_errors_are_equal(mode: Any) -> None:
    """One branch of several fails, before the others have ended; what these write is lost."""
    engine = ScriptedEngine(lambda prompt: prompt * 200)
    if mode is watching.ainvoke:  # threads can't be cancelled, and would be waited for
        for topic in ("sun", "moon"):
            engine.hold(f"A fact about {topic}.")
    with serving(engine) as url:
        llm = ChatParrot(base_url=url, temperature=0, max_retries=0)
        native, planned = both(GRAPHS["fan out"], llm, checkpointer=MemorySaver)
        value = {"topics": ["sun", "FAIL", "moon"]}
        config = thread()
        with pytest.raises(Exception, match="do not fit") as expected:
            mode(native, value, config)
        with pytest.raises(type(expected.value), match="do not fit"):
            mode(planned, value, config)
        assert planned.get_state(config).values == native.get_state(config).values
        assert planned.get_state(config).next == native.get_state(config).next


def test_state_is_equal(llm: ChatParrot) -> None:
    case = GRAPHS["supervisor"]
    native, planned = both(case, llm, checkpointer=MemorySaver)
    config = thread()
    told = []
    for graph in (native, planned):
        graph.invoke(case.input, config)
        history = [*graph.get_state_history(config), graph.get_state(config, subgraphs=True)]
        history.append(asyncio.run(graph.aget_state(config)))
        past = history[3].config
        graph.update_state(past, {"facts": ["Forked."]}, as_node="research")
        history.append(graph.get_state(config))
        told.append([seen((s.values, s.next, s.tasks, s.metadata)) for s in history])
        told.append([seen(graph.invoke(None, config))])
    assert told[2:] == told[:2]


def test_it_is_a_graph_like_the_one_it_was_made_of(llm: ChatParrot) -> None:
    case = GRAPHS["supervisor"]
    native = case.build(llm).compile(name="team")
    planned = compile(native)
    assert isinstance(planned, CompiledStateGraph)
    assert (type(planned).__name__, planned.name) == ("CompiledStateGraph", "team")
    assert planned.nodes == native.nodes
    assert planned.channels == native.channels
    assert planned.builder is native.builder
    drawn = [graph.get_graph(xray=True).draw_mermaid() for graph in (native, planned)]
    assert drawn[1] == drawn[0]
    assert [name for name, _ in planned.get_subgraphs()] == ["research", "writer"]
    assert planned.get_input_jsonschema() == native.get_input_jsonschema()
    assert planned.get_output_jsonschema() == native.get_output_jsonschema()


@pytest.mark.filterwarnings("ignore:The v3 streaming protocol")
def test_event_streams_are_equal(llm: ChatParrot) -> None:
    """Version v3, of which LangGraph makes an object of its own."""
    case = GRAPHS["supervisor"]
    told = []
    for graph in both(case, llm):
        run = graph.stream_events(case.input, version="v3")
        events = [(event["method"], event["params"]["namespace"]) for event in run]
        told.append(sorted(seen(event) for event in events if event[0] != "messages"))
    assert told[1] == told[0]
    assert told[0]


def test_functions_of_the_functional_api_are_equal(llm: ChatParrot) -> None:
    @task
    def write(topic: str) -> str:
        return llm.invoke(f"A fact about {topic}.").text

    @entrypoint(checkpointer=MemorySaver())
    def workflow(topics: list[str]) -> list[str]:
        facts = [write(topic) for topic in topics]
        return [fact.result() for fact in facts]

    value = ["sun", "moon"]
    assert compile(workflow).invoke(value, thread()) == workflow.invoke(value, thread())


def test_langgraph_is_loaded_only_where_a_graph_is_compiled() -> None:
    code = (
        "import sys; from parrot_integrations.langchain import compile; compile(len);"
        "assert not [m for m in sys.modules if m.partition('.')[0] in ('langgraph', 'langchain')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
