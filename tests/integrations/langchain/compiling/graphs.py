"""Graphs that people write, for tests that run them compiled and as they are."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from langchain_core.messages import AnyMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.pregel import Pregel
from langgraph.types import Command, RetryPolicy, Send
from typing_extensions import TypedDict

from parrot_integrations.langchain import ChatParrot
from tests.integrations.langchain.compiling.chains import ask

AnyGraph = Pregel[Any, Any, Any, Any]


@dataclass(frozen=True)
class GraphCase:
    """`planned`: how many calls are claimed that were submitted before they were asked for."""

    build: Callable[[ChatParrot], StateGraph[Any, Any, Any, Any]]
    input: Any
    planned: int = 0


class Topics(TypedDict, total=False):
    topics: list[str]
    facts: Annotated[list[str], operator.add]
    summary: str


def as_fact(text: str) -> dict[str, list[str]]:
    return {"facts": [text]}


def route(state: Topics) -> list[Send]:
    return [Send("worker", {"topic": topic}) for topic in state["topics"]]


def fan_out(llm: ChatParrot) -> StateGraph[Any, Any, Any, Any]:
    graph = StateGraph(Topics)
    graph.add_node("worker", ask("A fact about {topic}.", llm) | as_fact)
    graph.add_node("whole", ask("Sum up {facts}", llm) | (lambda text: {"summary": text}))
    graph.add_conditional_edges(START, route, ["worker"])
    graph.add_edge("worker", "whole")
    return graph


def sent_by_a_command(llm: ChatParrot) -> StateGraph[Any, Any, Any, Any]:
    def scatter(state: Topics) -> Command[Literal["worker"]]:
        return Command(goto=route(state), update={"summary": "none yet"})

    graph = StateGraph(Topics)
    graph.add_node("scatter", scatter)
    graph.add_node("worker", ask("A fact about {topic}.", llm) | as_fact)
    graph.add_edge(START, "scatter")
    return graph


def chains_with_breaks(llm: ChatParrot) -> StateGraph[Any, Any, Any, Any]:
    shout = RunnableLambda(lambda text: {"loud": text.upper()})
    two = ask("A fact about {topic}.", llm) | shout | ask("Louder: {loud}", llm)
    graph = StateGraph(Topics)
    graph.add_node("worker", two | as_fact)
    graph.add_conditional_edges(START, route, ["worker"])
    return graph


class Draft(TypedDict, total=False):
    topic: str
    text: str
    rounds: int


def loop(llm: ChatParrot) -> StateGraph[Any, Any, Any, Any]:
    def count(state: Draft) -> Draft:
        get_stream_writer()({"round": state.get("rounds", 0)})
        return {"rounds": state.get("rounds", 0) + 1}

    def enough(state: Draft) -> Literal["write", "__end__"]:
        return END if state["rounds"] == 3 else "write"

    better = ask("Write on {topic}.", llm) | ask("Improve {text}", llm)
    graph = StateGraph(Draft)
    graph.add_node("write", better | (lambda text: {"text": text}))
    graph.add_node("count", count)
    graph.add_edge(START, "write")
    graph.add_edge("write", "count")
    graph.add_conditional_edges("count", enough)
    return graph


def side_by_side(llm: ChatParrot) -> StateGraph[Any, Any, Any, Any]:
    """One of them fails at first, and the last waits for all."""
    failed: list[str] = []

    def flaky(text: str) -> dict[str, list[str]]:
        if text not in failed:
            failed.append(text)
            raise ConnectionError("once")
        failed.remove(text)
        return as_fact(text)

    graph = StateGraph(Topics)
    pros, cons = ask("Pros of {topics}", llm), ask("Cons of {topics}", llm)
    graph.add_node("pros", pros | as_fact)
    once = RetryPolicy(initial_interval=0.01, jitter=False)
    graph.add_node("cons", cons | flaky, retry_policy=once)
    graph.add_node("longer", pros | ask("More of {x}", llm) | as_fact)
    graph.add_node("all", lambda state: {"summary": "; ".join(sorted(state["facts"]))}, defer=True)
    for node in ("pros", "cons"):
        graph.add_edge(START, node)
        graph.add_edge(node, "all")
    graph.add_edge("pros", "longer")
    graph.add_edge("longer", "all")
    return graph


class Team(TypedDict, total=False):
    question: str
    parts: Annotated[list[str], operator.add]
    facts: Annotated[list[str], operator.add]
    next: list[str]


def supervisor(llm: ChatParrot) -> StateGraph[Any, Any, Any, Any]:
    """Two teams, which are graphs, the second of them sent its work."""
    research = fan_out(llm).compile(name="research")

    def lead(state: Team) -> Command[Literal["research", "writer", "__end__"]]:
        todo = state.get("next", ["research", "writer"])
        goto: Any = todo[0] if todo else END
        if goto == "research":
            goto = [Send("research", {"topics": [t]}) for t in ("sun", "moon", "rain")]
        return Command(goto=goto, update={"next": todo[1:]})

    class Writing(TypedDict, total=False):
        facts: list[str]
        parts: Annotated[list[str], operator.add]

    writing = StateGraph(Writing)
    first = ask("Begin with {facts}", llm)
    writing.add_node("begin", first | ask("Go on: {x}", llm) | (lambda text: {"parts": [text]}))
    writing.add_edge(START, "begin")
    graph = StateGraph(Team)
    graph.add_node("lead", lead)
    graph.add_node("research", research)
    graph.add_node("writer", writing.compile(name="writing"))
    graph.add_edge(START, "lead")
    graph.add_edge("research", "lead")
    graph.add_edge("writer", "lead")
    return graph


def model_in_a_function(llm: ChatParrot) -> StateGraph[Any, Any, Any, Any]:
    class Chat(TypedDict):
        messages: Annotated[list[AnyMessage], add_messages]

    def answer(state: Chat) -> dict[str, Any]:
        return {"messages": [llm.invoke(state["messages"])]}

    graph = StateGraph(Chat)
    graph.add_node("answer", answer)
    graph.add_edge(START, "answer")
    return graph


TOPICS = {"topics": ["sun", "moon", "rain", "snow", "wind", "fog"]}

GRAPHS = {
    "fan out": GraphCase(fan_out, TOPICS, 6),
    "sent by a command": GraphCase(sent_by_a_command, TOPICS, 6),
    "chains with breaks": GraphCase(chains_with_breaks, TOPICS, 12),
    "loop": GraphCase(loop, {"topic": "rain"}, 6),
    "side by side": GraphCase(side_by_side, TOPICS, 4),
    "supervisor": GraphCase(supervisor, {"question": "Why?"}, 5),
    "model in a function": GraphCase(model_in_a_function, {"messages": [HumanMessage("Hi")]}),
}
