"""Planning runs nothing of the user's: whatever they put into a chain records that it was called."""

from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.example_selectors import BaseExampleSelector
from langchain_core.output_parsers import BaseOutputParser
from langchain_core.prompts import ChatPromptTemplate, FewShotPromptTemplate, PromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableBranch,
    RunnableGenerator,
    RunnableLambda,
    RunnablePassthrough,
)
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.tools import StructuredTool

from parrot_integrations.langchain import ChatParrot, compile, join_texts
from tests.integrations.langchain.compiling.chains import ask

CALLED: list[str] = []


def recording(name: str, value: Any = None) -> Callable[..., Any]:
    def function(*_: Any, **__: Any) -> Any:
        CALLED.append(name)
        return value

    return function


class Loud:
    """Says it when anything is asked of it."""

    __str__ = __repr__ = __format__ = recording("text", "loud")
    __eq__ = __bool__ = recording("comparison", True)
    __len__ = __hash__ = recording("size", 1)
    __iter__ = __getitem__ = recording("items", "x")


class LoudDict(dict[str, Any]):
    __getitem__ = __iter__ = __contains__ = recording("item", "x")
    keys = values = items = get = recording("items", [])


class LoudList(list[Any]):
    __getitem__ = __iter__ = __len__ = recording("elements", 1)


class Retriever(BaseRetriever):
    def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        CALLED.append("retriever")
        return []


class Parser(BaseOutputParser[str]):
    def parse(self, text: str) -> str:
        CALLED.append("parser")
        return text


class Prompt(PromptTemplate):
    def format(self, **kwargs: Any) -> str:
        CALLED.append("prompt")
        return "x"


class Selector(BaseExampleSelector):
    add_example = recording("add")
    select_examples = recording("select", [])


class Custom(Runnable[Any, Any]):
    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        CALLED.append("custom")
        return input


def generate(chunks: Iterator[Any]) -> Iterator[Any]:
    CALLED.append("generator")
    yield from chunks


def search(query: str) -> str:
    """Searches."""
    CALLED.append("tool")
    return query


def steps(llm: ChatParrot) -> dict[str, Runnable[Any, Any]]:
    say = ask("Say {x}", llm)
    selected = FewShotPromptTemplate(
        example_selector=Selector(),
        example_prompt=PromptTemplate.from_template("{x}"),
        suffix="{x}",
    )
    history = recording("history")
    factory: Any = recording("factory", say)
    return {
        "pick": RunnablePassthrough().pick("x"),
        "item": RunnableLambda(itemgetter("x")),
        "join": join_texts(),
        "model": llm,
        "function": RunnableLambda(recording("function")),
        "generator": RunnableGenerator(generate),
        "condition": RunnableBranch((RunnableLambda(recording("condition")), say), say),
        "retriever": Retriever(),
        "tool": StructuredTool.from_function(search),
        "passthrough": RunnablePassthrough(recording("passthrough")),
        "assign": RunnablePassthrough.assign(y=recording("assign")) | say,
        "partial": ChatPromptTemplate.from_template("{x}{p}").partial(p=recording("partial")) | llm,
        "selector": selected | llm,
        "parser": say | Parser(),
        "prompt": Prompt.from_template("{x}") | llm,
        "custom": Custom() | say,
        "listeners": say.with_listeners(on_start=recording("listener")),
        "alternative": say.configurable_alternatives(
            ConfigurableField(id="which"), default_key="a", b=factory
        ).with_config(configurable={"which": "b"}),
        "history": RunnableWithMessageHistory(say, history, input_messages_key="x"),
        "retry": (RunnableLambda(recording("retried")) | say).with_retry(),
        "fallback": RunnableLambda(recording("main")).with_fallbacks([Custom()]),
    }


@pytest.fixture(autouse=True)
def nothing_called_yet() -> None:
    CALLED.clear()


class Handler(BaseCallbackHandler):
    on_chain_start = on_chat_model_start = on_retriever_start = on_tool_start = recording(
        "callback"
    )


@pytest.mark.filterwarnings("ignore:.*RunnableWithMessageHistory")
@pytest.mark.parametrize(
    "value",
    [
        {"x": "word"},
        {"x": Loud()},
        [Loud()],
        Loud(),
        LoudDict(x="a"),
        LoudList("ab"),
        {"x": LoudList("a")},
    ],
)
def test_planning_runs_nothing_of_the_user(
    value: Any, llm: ChatParrot, caplog: pytest.LogCaptureFixture
) -> None:
    config: Any = {"callbacks": [Handler()], "configurable": {"session_id": "s"}}
    for step in steps(llm).values():
        for chain in (step, ask("{x}", llm) | step, step.map(), {"x": step} | ask("{x}", llm)):
            compile(chain).explain(value, config)
    assert CALLED == []
    assert caplog.records == [], "and nothing went wrong"


def test_planning_sends_nothing(llm: ChatParrot) -> None:
    """Nobody listens at this address."""
    assert "1 planned call," in compile(ask("{x}", llm)).explain({"x": "y"})


@pytest.fixture
def llm() -> ChatParrot:
    return ChatParrot(base_url="http://127.0.0.1:9", temperature=0)
