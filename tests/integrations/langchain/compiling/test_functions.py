"""Functions are read, not run: what they give is planned with, and so are the calls inside them."""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from operator import itemgetter
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.runnables import (
    Runnable,
    RunnableBranch,
    RunnableConfig,
    RunnableLambda,
    RunnablePassthrough,
)
from langchain_core.runnables import chain as as_chain

from parrot_integrations.langchain import ChatParrot, compile
from parrot_integrations.planning.session import PlannedSession
from tests.doubles import ScriptedEngine
from tests.integrations.langchain.compiling import watching
from tests.integrations.langchain.compiling.chains import ask
from tests.integrations.langchain.compiling.watching import Recorder, plain, submitting
from tests.servers import serving

Build = Callable[[ChatParrot], Runnable[Any, Any]]
SYSTEM = "You are brief."
logger = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def llm() -> Iterator[ChatParrot]:
    with serving(ScriptedEngine(lambda prompt: f" {prompt[::-1][:30]} ")) as url:
        yield ChatParrot(base_url=url, temperature=0)


def format_docs(docs: list[Document]) -> str:
    """As in every retrieval chain."""
    return "\n\n".join(f"[{i}] {doc.page_content}" for i, doc in enumerate(docs, 1))


def answer_and_question(value: dict[str, Any]) -> dict[str, Any]:
    answer = value["a"].strip()
    return {**value, "a": answer, "title": f"Q: {value['q']}"}


def stripped(llm: ChatParrot) -> Runnable[Any, Any]:
    first = RunnablePassthrough.assign(a=itemgetter("q") | ask("Say {q}", llm))
    return first | answer_and_question | ask("{title}: check {a}!", llm)


def in_a_dict(llm: ChatParrot) -> Runnable[Any, Any]:
    return (
        ask("Name {x}", llm)
        | (lambda text: {"y": text.strip().upper(), "z": text.split()[0]})
        | ask("Draw {y} and {z}", llm)
    )


def retrieved(llm: ChatParrot) -> Runnable[Any, Any]:
    both = {"context": itemgetter("docs") | RunnableLambda(format_docs), "q": itemgetter("q")}
    return both | ask("{context}\n{q}?", llm) | (lambda text: {"a": text}) | ask("Check {a}", llm)


def mapped(llm: ChatParrot) -> Runnable[Any, Any]:
    split = RunnableLambda(lambda x: [{"x": text, "n": len(x["texts"])} for text in x["texts"]])
    return split | ask("Sum {x} of {n}", llm).map() | "\n".join | ask("All {xs}", llm)


def methods(llm: ChatParrot) -> Runnable[Any, Any]:
    first = ask("Name {x}", llm) | RunnableLambda(str.strip) | RunnableLambda(str.lower)
    return first | partial("{1}: {0}".format, "-") | ask("Draw {y}", llm)


def of_messages(llm: ChatParrot) -> Runnable[Any, Any]:
    return (
        ChatPromptTemplate.from_template("Name {x}")
        | llm
        | (lambda message: {"y": message.content, "z": message.text})
        | ask("Draw {y}{z}", llm)
    )


def of_json(llm: ChatParrot) -> Runnable[Any, Any]:
    """The engine reverses its prompt."""
    listed = ask('}}"{x}":"y"{{', llm) | (lambda text: json.loads(text)["y"] + "!")
    return listed | ask("Now {y}", llm)


def prompting(llm: ChatParrot) -> Runnable[Any, Any]:
    def prompt(value: dict[str, Any]) -> list[Any]:
        return [SystemMessage(SYSTEM), ("human", f"Now {value['a']}"), *value["history"]]

    first = RunnablePassthrough.assign(a=itemgetter("x") | ask("Say {x}", llm))
    return first | RunnableLambda(prompt) | llm | StrOutputParser()


def sequential(llm: ChatParrot) -> Runnable[Any, Any]:
    first, second = ask("First {x}", llm), ask("Then {y}: {z}", llm)

    @as_chain
    def steps(value: dict[str, str]) -> dict[str, Any]:
        """Two calls, of which one needs the other."""
        one = first.invoke({"x": value["q"]})
        logger.info("one is %s", one)
        prompt = PromptTemplate.from_template("Say {a} of {b}")
        message = llm.invoke([SystemMessage(SYSTEM), HumanMessage(f"Now {one.strip()}")])
        third = (prompt | llm).invoke({"a": one, "b": message.content})
        return {"y": third.content, "z": second.invoke(input={"y": one, "z": "z"})}

    return steps | second


def sequential_async(llm: ChatParrot) -> Runnable[Any, Any]:
    first, second = ask("First {x}", llm), ask("Then {y}", llm)

    async def asteps(value: str, config: RunnableConfig) -> str:
        both = await asyncio.gather(
            *[first.ainvoke({"x": x}, config) for x in (value, value + "?")]
        )
        last = await second.ainvoke({"y": "; ".join(both)}, config=config)
        return last.strip()

    def steps(value: str, config: RunnableConfig) -> str:
        both = first.batch([{"x": x} for x in (value, value + "?")], config)
        last = second.invoke({"y": "; ".join(both)}, config)
        return last.strip()

    return RunnableLambda(steps, asteps) | ask("End {z}", llm)


def looping(llm: ChatParrot) -> Runnable[Any, Any]:
    """Refine, as people write it."""
    draft, better = ask("Draft {text}", llm), ask("Improve {draft} by {text}", llm)

    def refine(value: dict[str, list[str]]) -> str:
        result, seen = "", []
        for text in value["texts"]:
            if not result:
                result = draft.invoke({"text": text}) + "."
            else:
                result = better.invoke({"draft": result, "text": text}) + "."
            seen.append(result)
        return "\n".join(seen)

    return RunnableLambda(refine) | ask("End {x}", llm)


class Nodes:
    """As in graphs of agents."""

    style = "terse"

    def __init__(self, llm: ChatParrot) -> None:
        self.llm = llm
        self.chain = ask("Say {x}", llm)

    def first(self, state: dict[str, Any]) -> dict[str, Any]:
        text = self.chain.invoke({"x": state["x"]})
        return {**state, "text": self._styled(text)}

    def second(self, state: dict[str, Any]) -> dict[str, Any]:
        return {"y": self.llm.invoke(state["text"]).content}

    def _styled(self, text: str) -> str:
        return f"{self.style}: {text}"


def of_an_object(llm: ChatParrot) -> Runnable[Any, Any]:
    nodes = Nodes(llm)
    return RunnableLambda(nodes.first) | nodes.second | ask("End {y}", llm)


def choosing(llm: ChatParrot) -> Runnable[Any, Any]:
    """By what is known, so that the chosen one is planned at once."""
    maths, other = ask("Reckon {x}", llm), ask("Say {x}", llm)

    def choose(value: dict[str, str]) -> Runnable[Any, Any]:
        return maths if "sum" in value["x"].lower() else other

    return RunnableLambda(choose) | ask("End {y}", llm)


def remembering(llm: ChatParrot) -> Runnable[Any, Any]:
    prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("human", "{q}")])

    def turn(value: dict[str, Any]) -> dict[str, Any]:
        asked = HumanMessage(value["q"])
        answer = llm.invoke([*value["history"], asked])
        return {"history": [*value["history"], asked, answer], "q": f"Why? {answer.text}"}

    return RunnableLambda(turn) | prompt | llm | StrOutputParser()


def branching(llm: ChatParrot) -> Runnable[Any, Any]:
    return RunnableBranch(
        (lambda value: "sum" in value["x"].lower(), ask("Reckon {x}", llm)),
        (lambda value: not value["x"], ask("Nothing {x}", llm)),
        ask("Say {x}", llm),
    ) | ask("End {y}", llm)


def parsed(llm: ChatParrot) -> Runnable[Any, Any]:
    first = ChatPromptTemplate.from_template('}}" {x}":"y"{{') | llm | JsonOutputParser()
    return first | (lambda value: f"<{value['y'].strip()}>") | ask("Now {y}", llm)


CASES: dict[str, tuple[Build, Any, int]] = {
    "a function of a dict": (stripped, {"q": "it"}, 2),
    "a lambda that makes a dict": (in_a_dict, {"x": "it"}, 2),
    "documents": (
        retrieved,
        {"docs": [Document("One."), Document("Two.")], "q": "what"},
        2,
    ),
    "a map over a comprehension": (mapped, {"texts": ["a", "b", "c"]}, 4),
    "methods of strings": (methods, {"x": "it"}, 2),
    "an answer's content": (of_messages, {"x": "it"}, 2),
    "json": (of_json, {"x": "it"}, 2),
    "messages": (prompting, {"x": "it", "history": [AIMessage("Yes"), ("human", "No")]}, 2),
    "calls inside": (sequential, {"q": "it"}, 5),
    "calls inside, async": (sequential_async, "it", 4),
    "a loop": (looping, {"texts": ["a", "b", "c"]}, 4),
    "methods of an object": (of_an_object, {"x": "it"}, 3),
    "a runnable given": (choosing, {"x": "the sum"}, 2),
    "a branch": (branching, {"x": "it"}, 2),
    "parsed json": (parsed, {"x": "it"}, 2),
    "a history": (remembering, {"q": "it", "history": [HumanMessage("Hi"), AIMessage("Ho")]}, 2),
}
SINGLE = [watching.invoke, watching.ainvoke, watching.stream, watching.astream]
DOUBLE = [watching.batch, watching.abatch]


@pytest.mark.parametrize("mode", SINGLE + DOUBLE)
@pytest.mark.parametrize("name", CASES)
def test_functions_are_read_and_their_calls_claimed(
    name: str, mode: Callable[..., Any], llm: ChatParrot
) -> None:
    build, value, calls = CASES[name]
    runs = 1 if mode in SINGLE else 2
    given = value if runs == 1 else [value, value]
    sessions: list[PlannedSession] = []
    recorders = Recorder(), Recorder()
    expected = mode(build(llm), given, {"callbacks": [recorders[0]]})
    compiled = compile(build(llm), on_session=sessions.append)
    assert plain(mode(compiled, given, {"callbacks": [recorders[1]]})) == plain(expected)
    assert Counter(recorders[1].events) == Counter(recorders[0].events)
    (session,) = sessions
    assert session.plan.breaks == []
    assert session.final is not None
    counts = session.final
    assert (counts.planned, counts.claimed, counts.unplanned) == (calls * runs, calls * runs, 0)


def test_calls_inside_a_function_start_before_they_are_asked_for(llm: ChatParrot) -> None:
    sessions: list[PlannedSession] = []
    compile(sequential(llm), on_session=sessions.append).invoke({"q": "it"})
    when = {(event.kind, event.name): event.seq for event in sessions[0].events()}
    for number in range(2, 6):
        assert when["call_started", f"call-{number}"] < when["call_claimed", f"call-{number}"]


def test_explain_tells_what_was_read(llm: ChatParrot) -> None:
    compiled = compile(stripped(llm))
    where = f"answer_and_question (test_functions.py:{answer_and_question.__code__.co_firstlineno})"
    assert compiled.plan([{"q": "it"}]).notes == {where: "read from its source"}


def opaque(llm: ChatParrot) -> Runnable[Any, Any]:
    """What it gives depends on an answer: only the run shows it."""
    long, short = ask("Long {y}", llm), ask("Short {y}", llm)
    both = short | ask("Then {z}", llm)

    def choose(value: dict[str, str]) -> Runnable[Any, Any]:
        return long if len(value["y"]) > 99 else both

    async def achoose(value: dict[str, str]) -> Runnable[Any, Any]:
        return long if len(value["y"]) > 99 else both

    return {"y": ask("Name {x}", llm)} | RunnableLambda(choose, achoose) | ask("End {a}", llm)


@pytest.mark.parametrize("mode", SINGLE + DOUBLE)
def test_a_runnable_that_a_function_gave_is_planned_when_it_has(
    mode: Callable[..., Any], llm: ChatParrot
) -> None:
    sessions: list[PlannedSession] = []
    recorders = Recorder(), Recorder()
    runs = 1 if mode in SINGLE else 2
    value: Any = {"x": "it"} if runs == 1 else [{"x": "it"}, {"x": "at"}]
    expected = mode(opaque(llm), value, {"callbacks": [recorders[0]]})
    compiled = submitting(opaque(llm), sessions.append)
    assert mode(compiled, value, {"callbacks": [recorders[1]]}) == expected
    assert Counter(recorders[1].events) == Counter(recorders[0].events)
    counts = sessions[0].final
    assert counts is not None
    assert (counts.planned, counts.claimed, counts.unplanned) == (4 * runs, 4 * runs, 0)
    assert "`len(value['y'])` needs the text itself" in sessions[0].plan.breaks[0].reason


def half_read(llm: ChatParrot) -> Runnable[Any, Any]:
    first, second = ask("First {x}", llm), ask("Second {y}", llm)

    def steps(value: dict[str, str]) -> str:
        one = first.invoke(value)
        two = second.invoke({"y": one})
        return two[::-1]

    return RunnableLambda(steps) | ask("Third {z}", llm)


def test_what_was_planned_before_a_reading_ended_stays_planned(llm: ChatParrot) -> None:
    sessions: list[PlannedSession] = []
    compiled = compile(half_read(llm), on_session=sessions.append)
    assert compiled.invoke({"x": "it"}) == half_read(llm).invoke({"x": "it"})
    counts = sessions[0].final
    assert counts is not None
    assert counts.claimed >= 2
    assert counts.claimed + counts.unplanned == 3
    assert "`two[::-1]` needs the text itself" in sessions[0].plan.breaks[0].reason


def waiting(llm: ChatParrot) -> Runnable[Any, Any]:
    """The function is read once more when what it waits for is there; its first call stays."""
    first, second = ask("First {x}", llm), ask("Second {y}", llm)

    def steps(value: dict[str, str]) -> str:
        one = first.invoke({"x": value["x"]})
        return second.invoke({"y": f"{one} {value['late']}"})

    late = ask("Late {x}", llm) | (lambda text: text[::-1])
    return RunnablePassthrough.assign(late=late) | RunnableLambda(steps) | ask("End {z}", llm)


def test_a_reading_that_waited_plans_nothing_twice(llm: ChatParrot) -> None:
    sessions: list[PlannedSession] = []
    compiled = compile(waiting(llm), on_session=sessions.append)
    assert compiled.invoke({"x": "it"}) == waiting(llm).invoke({"x": "it"})
    counts = sessions[0].final
    assert counts is not None
    assert (counts.planned, counts.claimed, counts.unplanned) == (4, 4, 0)


def test_a_wrong_reading_costs_time_only(llm: ChatParrot) -> None:
    """A step that was another one by the time at which the function ran."""
    chosen = [ask("One {x}", llm), ask("Two {x}", llm)]
    step = chosen[0]

    def switch(value: dict[str, str]) -> dict[str, str]:
        nonlocal step
        step = chosen[1]
        return value

    build = RunnableLambda(switch) | RunnableLambda(lambda value: step.invoke(value))
    sessions: list[PlannedSession] = []
    found = compile(build, on_session=sessions.append).invoke({"x": "it"})
    assert found == chosen[1].invoke({"x": "it"})


def test_an_error_inside_a_function_is_the_run_s(llm: ChatParrot) -> None:
    failing = RunnableLambda(lambda value: ask("FAIL {x}", llm).invoke(value)) | ask("End {y}", llm)
    with pytest.raises(Exception, match="do not fit") as expected:
        failing.invoke({"x": "it"})
    with pytest.raises(Exception, match="do not fit") as found:
        compile(failing).invoke({"x": "it"})
    assert (found.type, str(found.value)) == (expected.type, str(expected.value))
