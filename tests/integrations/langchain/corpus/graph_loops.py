"""LangGraph: loops, plans, and supervisors."""

import operator
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AnyMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import Runnable
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command
from pydantic import BaseModel

from parrot_integrations.langchain import ChatParrot
from tests.integrations.langchain.corpus.entry import Entry, ask
from tests.integrations.langchain.corpus.parts import Notes


class Chat(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


class Task(TypedDict, total=False):
    task: str
    steps: list[str]
    done: Annotated[list[str], operator.add]
    answer: str


class Plan(BaseModel):
    """The steps to take."""

    steps: list[str]


class Verdict(BaseModel):
    """The answer, once there is one."""

    answer: str


class Turn(BaseModel):
    """Who works next."""

    next: str


def reflection(llm: ChatParrot) -> Runnable[Any, Any]:
    """An essay and its teacher take turns, until there have been enough of them."""
    write = (
        ChatPromptTemplate.from_messages(
            [("system", "You write essays."), MessagesPlaceholder("messages")]
        )
        | llm
    )
    teach = (
        ChatPromptTemplate.from_messages(
            [
                ("system", "You grade essays and say what to improve."),
                MessagesPlaceholder("messages"),
            ]
        )
        | llm
    )

    def generate(state: Chat) -> Any:
        return {"messages": [write.invoke(state["messages"])]}

    def reflect(state: Chat) -> Any:
        return {"messages": [HumanMessage(teach.invoke(state["messages"]).text)]}

    def enough(state: Chat) -> str:
        return END if len(state["messages"]) > 5 else "reflect"

    graph = StateGraph(Chat)
    graph.add_node("generate", generate)
    graph.add_node("reflect", reflect)
    graph.add_edge(START, "generate")
    graph.add_conditional_edges("generate", enough, ["reflect", END])
    graph.add_edge("reflect", "generate")
    return graph.compile()


def plan_and_execute(llm: ChatParrot) -> Runnable[Any, Any]:
    planner = ChatPromptTemplate.from_template(
        "Make a plan for: {task}"
    ) | llm.with_structured_output(Plan)
    replanner = ChatPromptTemplate.from_template(
        "Revise the plan for {task}. Done: {done}"
    ) | llm.with_structured_output(Verdict)

    def plan(state: Task) -> Any:
        return {"steps": planner.invoke({"task": state["task"]}).steps}

    def execute(state: Task) -> Any:
        step = state["steps"][len(state["done"])]
        return {"done": [llm.invoke(f"For the task {state['task']}, do this: {step}").text]}

    def replan(state: Task) -> Any:
        verdict = replanner.invoke({"task": state["task"], "done": state["done"]})
        return {"answer": verdict.answer}

    def left(state: Task) -> str:
        return "execute" if len(state["done"]) < len(state["steps"]) else "replan"

    graph = StateGraph(Task)
    graph.add_node("plan", plan)
    graph.add_node("execute", execute)
    graph.add_node("replan", replan)
    graph.add_edge(START, "plan")
    graph.add_edge("plan", "execute")
    graph.add_conditional_edges("execute", left, ["execute", "replan"])
    graph.add_edge("replan", END)
    return graph.compile()


def supervisor(llm: ChatParrot) -> Runnable[Any, Any]:
    """A model says who works next, two workers do, each with a prompt of its own."""
    decide = ChatPromptTemplate.from_template(
        "Who is next, research or write? Task: {task}. Completed: {done}"
    ) | llm.with_structured_output(Turn)
    workers = {
        "research": ask("Research this: {task}", llm),
        "write": ask("Write on {task} with: {notes}", llm),
    }

    def lead(state: Task) -> Command[Any]:
        done = ", ".join(state.get("steps", [])) or "nothing"
        turn = decide.invoke({"task": state["task"], "done": done})
        return Command(goto=END if turn.next == "FINISH" else turn.next)

    def worker(name: str) -> Any:
        def work(state: Task) -> Command[Any]:
            notes = "\n".join(state.get("done", []))
            found = workers[name].invoke({"task": state["task"], "notes": notes})
            steps = [*state.get("steps", []), name]
            return Command(goto="lead", update={"done": [found], "steps": steps})

        return work

    graph = StateGraph(Task)
    graph.add_node("lead", lead, destinations=("research", "write", END))
    for name in workers:
        graph.add_node(name, worker(name), destinations=("lead",))
    graph.add_edge(START, "lead")
    return graph.compile()


def corrective(llm: ChatParrot) -> Runnable[Any, Any]:
    """Corrective RAG: what is found is graded, the question rewritten if too little is left."""
    grade = ask("Does this help with {task}? Answer only with yes or no.\n{text}", llm)
    rewrite = ask("Rewrite the question: {task}", llm)
    answer = ask("Context: {context}\nQuestion: {task}", llm)

    def retrieve(state: Task) -> Any:
        return {"steps": [found.page_content for found in Notes(k=4).invoke(state["task"])]}

    def judge(state: Task) -> Any:
        kept = []
        for text in state["steps"]:
            if grade.invoke({"task": state["task"], "text": text}) == "yes":
                kept.append(text)
        return {"steps": kept}

    graph = StateGraph(Task)
    graph.add_node("retrieve", retrieve)
    graph.add_node("judge", judge)
    graph.add_node("rewrite", lambda state: {"task": rewrite.invoke({"task": state["task"]})})
    graph.add_node(
        "answer",
        lambda state: {
            "answer": answer.invoke({"task": state["task"], "context": "\n".join(state["steps"])})
        },
    )
    graph.add_edge(START, "retrieve")
    graph.add_edge("retrieve", "judge")
    graph.add_conditional_edges(
        "judge", lambda state: "answer" if state["steps"] else "rewrite", ["answer", "rewrite"]
    )
    graph.add_edge("rewrite", "retrieve")
    graph.add_edge("answer", END)
    return graph.compile()


TASK = {"task": "boil water", "done": []}
GRAPH_LOOPS = {
    "reflection loop": Entry(
        reflection, {"messages": [HumanMessage("On kettles")]}, 5, ordered=True
    ),
    "plan and execute": Entry(plan_and_execute, TASK, 5, ordered=True),
    "supervisor": Entry(supervisor, TASK, 5, ordered=True),
    "corrective RAG": Entry(corrective, {"task": "warranty of the kettle"}, 5, ordered=True),
}
