"""Chains that people write, for tests that run them compiled and as they are."""

from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.runnables import Runnable, RunnableParallel, RunnablePassthrough

from parrot_integrations.langchain import ChatParrot, join_texts

Build = Callable[[ChatParrot], Runnable[Any, Any]]


@dataclass(frozen=True)
class Chain:
    """Of its calls `planned` are foreseen, `unplanned` are not.

    `ordered`: no step runs beside another, so that events have one order; `streams_ordered`: nor when
    it is streamed, where LangChain runs every `assign` in a thread of its own from the start.
    """

    build: Build
    input: Any
    planned: int
    unplanned: int = 0
    ordered: bool = True
    streams_ordered: bool = True


def ask(template: str, llm: Runnable[Any, Any]) -> Runnable[Any, str]:
    return ChatPromptTemplate.from_template(template) | llm | StrOutputParser()


def two_steps(llm: ChatParrot) -> Runnable[Any, Any]:
    name = PromptTemplate.from_template("Name a {colour} fruit.") | llm | StrOutputParser()
    return {"fruit": name} | ask("Where does this grow? {fruit}", llm)


def refine(llm: ChatParrot) -> Runnable[Any, Any]:
    return (
        RunnablePassthrough.assign(draft=ask("Describe {topic}.", llm))
        .assign(better=ask("Topic {topic}. Improve: {draft}", llm.bind(stop=["."])))
        .assign(best=ask("Shorten: {better}", llm).with_config(run_name="shorten", tags=["end"]))
        .pick(["draft", "best"])
    )


def map_reduce(llm: ChatParrot) -> Runnable[Any, Any]:
    part = ChatPromptTemplate.from_messages(
        [("system", "You summarize."), ("user", "Summarize: {text}")]
    )
    summaries = itemgetter("texts") | (part | llm | StrOutputParser()).map() | join_texts("\n")
    return {"texts": summaries} | ask("Combine:\n{texts}", llm)


def pros_and_cons(llm: ChatParrot) -> Runnable[Any, Any]:
    both = RunnableParallel(
        pros=ask("Pros of {topic}?", llm),
        cons=ask("Cons of {topic}?", llm),
        raw=itemgetter("topic"),
    )
    return both | RunnablePassthrough.assign(
        verdict=ask("{raw}: {pros} against {cons}?", llm.bind(max_tokens=7))
    )


def chat_with_history(llm: ChatParrot) -> Runnable[Any, Any]:
    prompt = ChatPromptTemplate.from_messages(
        [("system", "You are a {kind}."), MessagesPlaceholder("history"), ("human", "{question}")]
    )
    return prompt | llm


def with_a_lambda(llm: ChatParrot) -> Runnable[Any, Any]:
    first = ask("Name a city in {country}.", llm)
    return first | (lambda city: {"city": city.title()}) | ask("What is {city} known for?", llm)


CHAINS: dict[str, Chain] = {
    "one call": Chain(lambda llm: ask("Say {word}.", llm), {"word": "hi"}, 1),
    "a value for a dict": Chain(lambda llm: ask("Say {word}.", llm), "hi", 1),
    "model alone": Chain(lambda llm: llm, "Name a bird.", 1),
    "model on messages": Chain(
        lambda llm: llm | StrOutputParser(), [HumanMessage("Name a bird.")], 1
    ),
    "two steps": Chain(two_steps, {"colour": "red"}, 2),
    "refine": Chain(refine, {"topic": "rain"}, 3, streams_ordered=False),
    "map reduce": Chain(
        map_reduce, {"texts": ["Sun.", "Moon.", "Stars."]}, 4, ordered=False, streams_ordered=False
    ),
    "parallel": Chain(pros_and_cons, {"topic": "cars"}, 3, ordered=False, streams_ordered=False),
    "history": Chain(
        chat_with_history,
        {
            "kind": "poet",
            "history": [HumanMessage("Hello"), AIMessage("Good day")],
            "question": "Who are you?",
        },
        1,
    ),
    "a lambda in between": Chain(with_a_lambda, {"country": "Peru"}, 2),
}
