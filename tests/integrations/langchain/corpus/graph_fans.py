"""LangGraph: nodes side by side and `Send`."""

import operator
from typing import Annotated, Any, TypedDict

from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from pydantic import BaseModel

from parrot_integrations.langchain import ChatParrot
from tests.integrations.langchain.corpus.entry import Entry, ask
from tests.integrations.langchain.corpus.parts import DOCUMENTS


class Jokes(TypedDict, total=False):
    topic: str
    subjects: list[str]
    jokes: Annotated[list[str], operator.add]
    best: str


class Task(TypedDict, total=False):
    task: str
    steps: list[str]
    done: Annotated[list[str], operator.add]
    answer: str


class Sections(BaseModel):
    """The sections of a report."""

    sections: list[str]


def jokes(llm: ChatParrot) -> Runnable[Any, Any]:
    """Map-reduce as the tutorial has it: as many branches as the model finds subjects."""

    def subjects(state: Jokes) -> Any:
        text = llm.invoke(f"Subjects of {state['topic']}, separated by commas").text
        return {"subjects": [subject.strip() for subject in text.split(",")]}

    def joke(state: Any) -> Any:
        return {"jokes": [llm.invoke(f"Tell a joke about {state['subject']}").text]}

    def best(state: Jokes) -> Any:
        told = "\n\n".join(state["jokes"])
        return {"best": llm.invoke(f"Which of these is the best joke?\n{told}").text}

    def each(state: Jokes) -> list[Send]:
        return [Send("joke", {"subject": subject}) for subject in state["subjects"]]

    graph = StateGraph(Jokes)
    graph.add_node("subjects", subjects)
    graph.add_node("joke", joke)
    graph.add_node("best", best)
    graph.add_edge(START, "subjects")
    graph.add_conditional_edges("subjects", each, ["joke"])
    graph.add_edge("joke", "best")
    graph.add_edge("best", END)
    return graph.compile()


def summaries(llm: ChatParrot) -> Runnable[Any, Any]:
    """A summary of each document from the start, and one of them all."""
    each_chain = ask("Summarize: {text}", llm)
    all_chain = ask("Consolidate:\n{summaries}", llm)

    def one(state: Any) -> Any:
        return {"done": [each_chain.invoke({"text": state["text"]})]}

    def last(state: Task) -> Any:
        return {"answer": all_chain.invoke({"summaries": "\n".join(state["done"])})}

    graph = StateGraph(Task)
    graph.add_node("one", one)
    graph.add_node("last", last)
    graph.add_conditional_edges(
        START, lambda state: [Send("one", {"text": step}) for step in state["steps"]], ["one"]
    )
    graph.add_edge("one", "last")
    return graph.compile()


def report(llm: ChatParrot) -> Runnable[Any, Any]:
    """An orchestrator names the sections, a worker writes each, and they are put together."""
    prompt = ChatPromptTemplate.from_template("Name the sections of a report on {task}.")
    planner = prompt | llm.with_structured_output(Sections)

    def orchestrate(state: Task) -> Any:
        return {"steps": planner.invoke({"task": state["task"]}).sections}

    def write(state: Any) -> Any:
        return {"done": [llm.invoke(f"Write the section {state['section']}.").text]}

    def synthesize(state: Task) -> Any:
        return {"answer": "\n\n---\n\n".join(state["done"])}

    graph = StateGraph(Task)
    graph.add_node("orchestrate", orchestrate)
    graph.add_node("write", write)
    graph.add_node("synthesize", synthesize)
    graph.add_edge(START, "orchestrate")
    graph.add_conditional_edges(
        "orchestrate",
        lambda s: [Send("write", {"section": each}) for each in s["steps"]],
        ["write"],
    )
    graph.add_edge("write", "synthesize")
    return graph.compile()


def parallel_nodes(llm: ChatParrot) -> Runnable[Any, Any]:
    """Three nodes side by side, and one that reads what they wrote."""
    graph = StateGraph(Task)
    for kind in ("joke", "story", "poem"):
        prompt = ask(f"Write a {kind} about {{task}}", llm)

        def write(state: Task, prompt: Runnable[Any, str] = prompt) -> Any:
            return {"done": [prompt.invoke({"task": state["task"]})]}

        graph.add_node(kind, write)
        graph.add_edge(START, kind)

    def combine(state: Task) -> Any:
        joined = "\n".join(state["done"])
        return {"answer": llm.invoke(f"Combine into one text on {state['task']}:\n{joined}").text}

    graph.add_node("combine", combine)
    graph.add_edge(["joke", "story", "poem"], "combine")
    return graph.compile()


def gated(llm: ChatParrot) -> Runnable[Any, Any]:
    """Prompt chaining: a joke is improved and polished unless it has its punch line."""

    def make(state: Jokes) -> Any:
        return {"jokes": [llm.invoke(f"Write a short joke about {state['topic']}").text]}

    def improve(state: Jokes) -> Any:
        return {"jokes": [llm.invoke(f"Make this joke funnier: {state['jokes'][0]}").text]}

    def polish(state: Jokes) -> Any:
        return {"best": llm.invoke(f"Add a surprising twist to: {state['jokes'][1]}").text}

    def funny(state: Jokes) -> str:
        return END if "!" in state["jokes"][0] else "improve"

    graph = StateGraph(Jokes)
    graph.add_node("make", make)
    graph.add_node("improve", improve)
    graph.add_node("polish", polish)
    graph.add_edge(START, "make")
    graph.add_conditional_edges("make", funny, ["improve", END])
    graph.add_edge("improve", "polish")
    graph.add_edge("polish", END)
    return graph.compile()


GRAPH_FANS = {
    "Send map-reduce": Entry(jokes, {"topic": "kitchens"}, 5),
    "summaries by Send": Entry(summaries, {"steps": [d.page_content for d in DOCUMENTS]}, 11),
    "orchestrator and workers": Entry(report, {"task": "water"}, 4),
    "parallel nodes": Entry(parallel_nodes, {"task": "water"}, 4),
    "chain with a gate": Entry(gated, {"topic": "kettles"}, 3, ordered=True),
}
