"""Agents of `create_agent` are graphs: compiled, they do what they did, and cost nothing."""

import asyncio
import operator
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from langchain.agents import AgentState, create_agent
from langchain.agents.middleware import AgentMiddleware, ModelCallLimitMiddleware, before_model
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import MemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Send
from pydantic import BaseModel
from typing_extensions import TypedDict

from parrot_integrations.langchain import ChatParrot, compile
from parrot_integrations.planning.session import PlannedSession
from tests.doubles import ScriptedEngine
from tests.integrations.langchain.compiling import watching
from tests.integrations.langchain.compiling.watching import Recorder
from tests.integrations.langchain.compiling.watching_graphs import MODES, seen, streamed, thread
from tests.servers import serving
from tests.tools import written


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Sum(BaseModel):
    """The answer to a question about numbers."""

    total: int


def script(prompt: str) -> str:
    """The engine's answers: it asks for a tool, and tells what it got."""
    if "Use json." in prompt:
        return '{"total": 5}'
    if prompt.endswith("2 and 3?"):
        return written("add", a=2, b=3) + written("add", a=4, b=5)
    return "It is 5."


@pytest.fixture(scope="module")
def llm() -> Iterator[ChatParrot]:
    with serving(ScriptedEngine(script)) as url:
        yield ChatParrot(base_url=url, temperature=0)


@before_model
def remember(state: AgentState[Any], runtime: Any) -> dict[str, Any] | None:
    return None


AGENTS = {
    "tools": lambda llm, **kwargs: create_agent(llm, [add], **kwargs),
    "middleware": lambda llm, **kwargs: create_agent(
        llm, [add], middleware=[remember, ModelCallLimitMiddleware(run_limit=5)], **kwargs
    ),
    "response format": lambda llm, **kwargs: create_agent(
        llm, [add], response_format=Sum, **kwargs
    ),
}


@pytest.mark.parametrize("question", ["What is 2 and 3?", "Use json."])
@pytest.mark.parametrize("name", AGENTS)
def test_agents_are_equal(name: str, question: str, llm: ChatParrot) -> None:
    value = {"messages": [HumanMessage(question)]}
    if name == "response format" and question != "Use json.":
        value = {"messages": [HumanMessage(f"{question} Use json.")]}
    sessions: list[PlannedSession] = []
    native = AGENTS[name](llm, checkpointer=MemorySaver())
    planned = compile(AGENTS[name](llm, checkpointer=MemorySaver()), on_session=sessions.append)
    for mode in (watching.invoke, watching.ainvoke):
        told = []
        for agent in (native, planned):
            recorder, config = Recorder(whole=True), thread()
            told.append(seen(mode(agent, value, {"callbacks": [recorder], **config})))
            told.append(sorted(map(seen, recorder.events)))
            told.append(seen(agent.get_state(config)))
        assert told[3:] == told[:3]
    told = [streamed([*a.stream(value, thread(), stream_mode=MODES)]) for a in (native, planned)]
    assert told[1] == told[0]
    assert sessions == []  # each of its calls needs what the one before it gave


def test_agents_that_are_sent_out_together(llm: ChatParrot) -> None:
    class Team(TypedDict, total=False):
        answers: Annotated[list[str], operator.add]

    agent = create_agent(llm, [add])

    def answer(state: dict[str, Any]) -> dict[str, Any]:
        return {"answers": [state["messages"][-1].text]}

    graph = StateGraph(Team)
    graph.add_node("agent", agent | answer)
    sent = [Send("agent", {"messages": [HumanMessage(f"{i}: 2 and 3?")]}) for i in range(6)]
    graph.add_conditional_edges(START, lambda state: sent, ["agent"])
    native = graph.compile()
    planned = compile(native)
    expected = native.invoke({})
    assert len(expected["answers"]) == 6
    assert planned.invoke({}) == expected
    assert asyncio.run(planned.ainvoke({})) == expected


def test_what_middleware_asks_is_planned(llm: ChatParrot) -> None:
    """Two calls one after the other, which the node's input tells."""

    class Notes(AgentMiddleware):
        def before_model(self, state: AgentState[Any], runtime: Any) -> dict[str, Any] | None:
            topic = llm.invoke(f"Topic of: {state['messages'][0].content}").text
            note = llm.invoke(f"Note on {topic}").text
            return {"messages": [SystemMessage(note)]}

    sessions: list[PlannedSession] = []
    native = create_agent(llm, [], middleware=[Notes()])
    planned = compile(native, on_session=sessions.append)
    value = {"messages": [HumanMessage("Good morning!")]}
    assert seen(planned.invoke(value)) == seen(native.invoke(value))
    (session,) = sessions
    assert session.final is not None
    assert (session.final.planned, session.final.claimed) == (2, 2)


def test_explain_says_that_an_agent_gains_nothing(llm: ChatParrot) -> None:
    agent: Any = compile(create_agent(llm, [add]))
    assert "the graph: no call of it is known before it runs" in agent.explain({"messages": ["Hi"]})
