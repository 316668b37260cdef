"""Graph breaks that one acts on: where they are, what to do about them, and what is none."""

import inspect
import json
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import BaseOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    Runnable,
    RunnableBranch,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langchain_core.tools import tool

from parrot_integrations.langchain import ChatParrot, ParrotLLM, compile
from tests.integrations.langchain.compiling.chains import ask


@pytest.fixture
def llm(scripted_url: str) -> ChatParrot:
    return ChatParrot(base_url=scripted_url, temperature=0)


class Tail(BaseOutputParser[str]):
    """A parser of the user's own."""

    def parse(self, text: str) -> str:
        return text[-3:]


class Nothing(BaseRetriever):
    """Finds nothing."""

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Any]:
        return []


class Own(Runnable[Any, Any]):
    """A runnable of the user's own."""

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        return vars()["input"]


class OwnTemplate(PromptTemplate):
    """Formats as it likes."""


@tool
def search(query: str) -> str:
    """Search."""
    return query


def opaque(text: str) -> Any:
    """What it gives can't be read from its source."""
    return vars()["text"]


def chunks(texts: Any) -> Any:
    yield from texts


def line_of(function: Any) -> int:
    return inspect.getsourcelines(function)[1]


def breaks(chain: Any, value: Any) -> list[dict[str, Any]]:
    return json.loads(compile(chain).explain(value, format="json"))["breaks"]


def test_two_lambdas_are_told_apart_by_line_and_step(llm: ChatParrot) -> None:
    first = RunnableLambda(lambda text: vars()["text"])
    second = RunnableLambda(lambda text: vars()["text"])
    both = RunnableParallel(a=ask("A {x}", llm) | first, b=ask("B {x}", llm) | second)
    told = breaks(both | ask("{a}{b}", llm), {"x": "1"})
    assert [stop["where"] for stop in told] == ["lambda", "lambda"]
    assert [stop["step"] for stop in told] == [
        "step 1 of 4 > a > step 4 of 4",
        "step 1 of 4 > b > step 4 of 4",
    ]
    lines = [int(stop["location"].rpartition(":")[2]) for stop in told]
    assert lines == [line_of(first.func), line_of(second.func)]
    assert told[0]["location"].endswith("test_breaks.py:" + str(lines[0]))


@pytest.mark.parametrize(
    ("step", "code", "where"),
    [
        (RunnableLambda(opaque), opaque, "opaque"),
        (RunnableLambda(partial(opaque)), opaque, "function"),
        (RunnableLambda(opaque, name="mine"), opaque, "mine"),
        (RunnableGenerator(chunks), chunks, "chunks"),
        (Own(), Own.invoke, "Own"),
        (Tail(), Tail.parse, "Tail"),
        (Nothing(), Nothing._get_relevant_documents, "Nothing"),
        (search, search.func, "search"),
        (RunnableLambda(Own().invoke), Own.invoke, "invoke"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_location_is_that_of_the_user_s_code(
    step: Any, code: Any, where: str, llm: ChatParrot
) -> None:
    (told,) = breaks(ask("{x}", llm) | step | ask("{y}", llm), {"x": "1"})
    assert told["location"].rpartition("/")[2] == f"test_breaks.py:{line_of(code)}"
    assert told["where"] == where


def test_a_library_s_step_has_no_location(llm: ChatParrot) -> None:
    (told,) = breaks(FakeListChatModel(responses=["a"]) | ask("{x}", llm), "hi")
    assert (told["where"], told["location"]) == ("FakeListChatModel", "")


def test_the_location_of_a_branch_is_that_of_its_condition(llm: ChatParrot) -> None:
    condition = RunnableLambda(lambda value: bool(vars()["value"]))
    (told,) = breaks(RunnableBranch((condition, ask("{x}", llm)), ask("no {x}", llm)), {"x": "1"})
    assert told["where"] == "RunnableBranch"
    assert told["location"].endswith(f":{line_of(condition.func)}")


def test_the_step_leads_through_maps_assigns_bindings_and_branches(llm: ChatParrot) -> None:
    inner = (ask("{x}", llm) | opaque).with_retry().with_config(tags=["t"])
    chain = RunnablePassthrough.assign(ys=itemgetter("xs") | inner.map()) | ask("{ys}", llm)
    told = breaks(chain, {"xs": ["a", "b"]})
    assert {stop["step"] for stop in told} == {
        "step 1 of 4 > ys > step 2 of 2 > each > step 4 of 4"
    }
    assert len(told) == 2


ADVICE: dict[str, tuple[Any, str]] = {
    "parser": (Tail(), "transforms.json_field"),
    "retriever": (Nothing(), "planned when the documents are there"),
    "tool": (search, "is a tool"),
    "model": (FakeListChatModel(responses=["a"]), "Use ChatParrot"),
    "text model": (ParrotLLM(base_url="http://127.0.0.1:1"), "Use ChatParrot"),
    "generator": (RunnableGenerator(chunks), "A function from text to text in its place"),
    "custom": (Own(), "is a runnable of a class that planning does not know"),
    "template": (OwnTemplate.from_template("{x}"), "a subclass may format as it likes"),
    "jinja2": (
        PromptTemplate(template="{{ x }}", template_format="jinja2", input_variables=["x"]),
        "An f-string or mustache template",
    ),
}


@pytest.mark.parametrize("kind", ADVICE)
def test_each_kind_of_step_has_its_advice(kind: str, llm: ChatParrot) -> None:
    step, words = ADVICE[kind]
    (told,) = breaks(step | llm, {"x": "1"})
    assert words in f"{told['reason']}. {told['remedy']}"
    assert told["remedy"]


def test_every_break_says_what_to_do(llm: ChatParrot) -> None:
    """Also where the rule that made it had nothing to say."""
    (told,) = breaks(itemgetter("x") | RunnableLambda(opaque).map() | llm, {"x": "1"})
    assert told["reason"].startswith("maps over something")
    assert "is planned when its output is there" in told["remedy"]


ENDS: dict[str, Callable[[ChatParrot], Any]] = {
    "a parser": lambda llm: llm | Tail(),
    "a parser and a function": lambda llm: llm | Tail() | opaque,
    "a parser and a pick": lambda llm: llm | Tail() | {"a": opaque} | itemgetter("a"),
    "a parser inside a sequence": lambda llm: {"a": (llm | Tail()).with_config(tags=["t"])},
    "a map whose results are the end": lambda llm: (
        {"x": RunnablePassthrough()} | RunnablePassthrough.assign(y=llm_of(llm) | Tail())
    ),
    "a branch without calls": lambda llm: llm | RunnableBranch((opaque, opaque), opaque),
    "a retriever": lambda llm: llm | StrOutputParser() | Nothing(),
    "a runnable of one's own": lambda llm: llm | Own(),
}


def llm_of(llm: ChatParrot) -> Runnable[Any, Any]:
    return itemgetter("x") | llm


@pytest.mark.parametrize("name", ENDS)
def test_an_opaque_step_at_the_end_is_no_break(name: str, llm: ChatParrot) -> None:
    compiled = compile(ENDS[name](llm))
    assert "1 planned call" in compiled.explain("hi")
    assert "0 graph breaks" in compiled.explain("hi")
    assert "Graph breaks" not in compiled.explain("hi", analyze=True)


BEFORE: dict[str, Callable[[ChatParrot], Any]] = {
    "a call": lambda llm: llm | Tail() | llm,
    "a call far behind": lambda llm: llm | Tail() | {"a": opaque} | itemgetter("a") | llm,
    "a map's call": lambda llm: llm | Tail() | list | llm.map(),
    "a call of a function": lambda llm: (
        llm | Tail() | RunnableLambda(lambda text: llm.invoke(text))
    ),
    "a call of a function's function": lambda llm: llm | Tail() | calling(llm),
    "a call of a method": lambda llm: llm | Tail() | Holder(llm).ask,
    "a fallback's call": lambda llm: llm | Tail() | RunnableLambda(opaque).with_fallbacks([llm]),
}


class Holder:
    """Has a model."""

    def __init__(self, llm: ChatParrot) -> None:
        self.llm = llm

    def ask(self, text: str) -> Any:
        return self.llm.invoke(text)


def calling(llm: ChatParrot) -> Runnable[Any, Any]:
    def inner(text: str) -> Any:
        return [llm.invoke(text) for _ in range(2)]

    return RunnableLambda(lambda text: inner(text))


@pytest.mark.parametrize("name", BEFORE)
def test_before_a_call_it_is_one(name: str, llm: ChatParrot) -> None:
    told = breaks(BEFORE[name](llm), "hi")
    assert "Tail" in [stop["where"] for stop in told]


def test_inside_a_map_whose_results_are_used_it_is_one(llm: ChatParrot) -> None:
    each = (ask("{x}", llm) | opaque).map()
    assert breaks(each, [{"x": "a"}, {"x": "b"}]) == []
    told = compile(each | (lambda texts: vars()["texts"]) | llm).explain(
        [{"x": str(i)} for i in range(200)]
    )
    assert "201 graph breaks" in told
    assert "opaque at " in told
    assert "(200 times)." in told
    assert len(told.splitlines()) < 25


def test_a_function_with_a_call_is_one_also_at_the_end(llm: ChatParrot) -> None:
    """Its own call is not planned, and that one can act on."""
    (told,) = breaks(
        ask("{x}", llm) | RunnableLambda(lambda text: llm.invoke(vars()["text"])), {"x": "1"}
    )
    assert told["where"] == "lambda"


def test_looking_for_breaks_runs_no_code_of_the_user(llm: ChatParrot) -> None:
    called: list[str] = []

    class Loud(Runnable[Any, Any]):
        @property
        def name(self) -> str:  # type: ignore[override]
            called.append("name")
            return "loud"

        def get_name(self, *args: Any, **kwargs: Any) -> str:
            called.append("get_name")
            return "loud"

        def __getattr__(self, name: str) -> Any:
            called.append(name)
            raise AttributeError(name)

        def __repr__(self) -> str:
            called.append("repr")
            return "loud"

        def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
            return input

    chain = ask("{x}", llm) | Loud() | RunnableLambda(Loud().invoke) | ask("{y}", llm)
    called.clear()
    (told,) = breaks(chain, {"x": "1"})
    assert told["where"] == "Loud"
    assert called == []


def test_what_a_break_reads_is_told(llm: ChatParrot) -> None:
    chain = {"a": ask("A {x}", llm) | opaque, "b": ask("B {x}", llm)} | RunnableLambda(opaque)
    told = breaks(chain | ask("{c}", llm), {"x": "1"})
    assert [(stop["reads"], stop["output"]) for stop in told] == [
        (["answer-1"], "break-1"),
        (["break-1", "answer-2"], "break-2"),
    ]


def test_a_notebook_cell_is_named_as_one(llm: ChatParrot) -> None:
    scope: dict[str, Any] = {}
    code = "def f(text):\n    return vars()['text']"
    exec(compile_code(code, "/tmp/ipykernel_12/345.py"), scope)
    (told,) = breaks(ask("{x}", llm) | scope["f"] | ask("{y}", llm), {"x": "1"})
    assert told["location"] == "a notebook cell, line 1"


def compile_code(code: str, file: str) -> Any:
    import builtins

    return builtins.compile(code, file, "exec")


def test_prompts_in_a_break_s_chain_are_planned_as_ever(llm: ChatParrot) -> None:
    prompt = ChatPromptTemplate.from_template("{x}")
    assert breaks(prompt | llm | StrOutputParser(), {"x": "1"}) == []
