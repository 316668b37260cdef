"""What a prompt or a model gets: messages in any form, and values that Python writes as text."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import Runnable, RunnablePassthrough

from parrot_integrations.langchain import ChatParrot, compile
from tests.doubles import ScriptedEngine
from tests.integrations.langchain.compiling.chains import ask
from tests.integrations.langchain.compiling.claims import claims
from tests.servers import serving


@pytest.fixture(scope="module")
def llm() -> Iterator[ChatParrot]:
    with serving(ScriptedEngine(lambda prompt: prompt[::-1][:20])) as url:
        yield ChatParrot(base_url=url, temperature=0, max_retries=0)


class Colour(Enum):
    RED = "r"


class Word(StrEnum):
    RED = "r"


class Number(IntEnum):
    ONE = 1


class Mixed(str, Enum):  # noqa: UP042 - as older code has it
    RED = "r"


CALLED: list[str] = []


class Loud(Enum):
    RED = "r"

    def __str__(self) -> str:
        CALLED.append("str")
        return "loud"


class LoudFormat(Enum):
    RED = "r"

    def __format__(self, spec: str) -> str:
        CALLED.append("format")
        return "loud"


class LoudWords(str):
    def __format__(self, spec: str) -> str:
        CALLED.append("words")
        return "loud"


class LoudZone(tzinfo):
    def utcoffset(self, when: Any) -> timedelta:
        CALLED.append("zone")
        return timedelta(0)


VALUES: dict[str, Any] = {
    "date": date(2026, 3, 1),
    "datetime": datetime(2026, 3, 1, 12, 30, tzinfo=UTC),
    "datetime in a zone": datetime(2026, 7, 1, tzinfo=ZoneInfo("Europe/Berlin")),
    "timedelta": timedelta(hours=3),
    "Decimal": Decimal("1.10"),
    "Path": Path("a") / "b.txt",
    "UUID": UUID(int=7),
    "Enum": Colour.RED,
    "StrEnum": Word.RED,
    "IntEnum": Number.ONE,
    "str and Enum": Mixed.RED,
    "Document": Document("Text.", metadata={"page": 1}, id="d"),
    "a list of documents": [
        Document("One."),
        Document("Two.", metadata={"when": date(2026, 1, 2)}),
    ],
    "containers": {"a": [Decimal(1), (UUID(int=1), None)], "b": date(2026, 1, 1)},
}


@pytest.mark.parametrize("name", VALUES)
def test_values_that_python_writes_as_text_are_planned(name: str, llm: ChatParrot) -> None:
    """The scripted engine turns the prompt round, so a prompt that differs is not claimed."""
    chain = ask("Say {x} and {x!s}", llm) | ask("Then {y}", llm)
    assert claims(lambda: chain, {"x": VALUES[name]}) == (2, 2, 2)


def test_a_value_in_a_format_of_its_own_is_planned(llm: ChatParrot) -> None:
    chain = ask("On {day:%d.%m.%Y} pay {sum:.1f}", llm) | ask("Then {y}", llm)
    assert claims(lambda: chain, {"day": date(2026, 3, 1), "sum": Decimal("2.25")}) == (2, 2, 2)


@pytest.mark.parametrize(
    "value",
    [
        Loud.RED,
        LoudFormat.RED,
        LoudWords("a"),
        datetime(2026, 1, 1, tzinfo=LoudZone()),
        Document("x", metadata={"a": Loud.RED}),
        [Loud.RED],
    ],
)
def test_what_the_user_s_code_would_write_is_a_break(value: Any, llm: ChatParrot) -> None:
    CALLED.clear()
    told = compile(ask("Say {x}", llm)).explain({"x": value})
    assert "0 planned calls" in told
    assert "not a text" in told
    assert CALLED == []


def test_the_representation_of_an_enum_is_a_break(llm: ChatParrot) -> None:
    assert "takes the representation" in compile(ask("{x!r}", llm)).explain({"x": Colour.RED})


MESSAGES: dict[str, Any] = {
    "pairs": [("system", "Be brief."), ("human", "Name a bird.")],
    "dicts": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Name a bird."},
        {"type": "ai", "content": "Wren."},
    ],
    "lists": [["human", "Name a bird."]],
    "texts": ["Name a bird.", "And another."],
    "messages": [HumanMessage("Name a bird."), AIMessage("Wren."), HumanMessage("Why?")],
    "all of them": [HumanMessage("One"), ("ai", "Two"), {"role": "user", "content": "Three"}, "4"],
    "a call of a tool": [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": '{"a": 1}'}}],
        },
        {"role": "tool", "content": "found", "tool_call_id": "c"},
        ("user", "So?"),
    ],
    "parts of texts": [("human", [{"type": "text", "text": "Name "}, "a bird."])],
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_in_any_form_are_planned(name: str, llm: ChatParrot) -> None:
    assert claims(lambda: llm, MESSAGES[name]) == (1, 1, 1)
    prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("human", "{q}")])
    history = {"history": MESSAGES[name], "q": "And?"}
    assert claims(lambda: prompt | llm, history) == (1, 1, 1)


def test_a_tuple_is_a_list_of_messages(llm: ChatParrot) -> None:
    """LangChain takes a pair for two texts, not for a role and a text."""
    assert claims(lambda: llm, ("human", "Name a bird.")) == (1, 1, 1)


@pytest.mark.parametrize(
    "messages", [[("nobody", "x")], [{"content": "no role"}], [("human", "a", "b")], [3], {"a": 1}]
)
def test_what_is_no_message_fails_as_it_does(messages: Any, llm: ChatParrot) -> None:
    assert claims(lambda: llm, messages) == (0, 0, 0)


class Named(ChatParrot):
    """Its own defaults and helpers, and nothing that makes a request."""

    temperature: float | None = 0
    motto: str = "brief"

    @property
    def _llm_type(self) -> str:
        return "named"

    def greet(self) -> str:
        return self.invoke("Hello").text


class Polite(ChatParrot):
    def request_body(self, messages: Any, stop: Any = None, **kwargs: Any) -> dict[str, Any]:
        CALLED.append("request")
        return super().request_body(messages, stop, **kwargs)


def test_a_subclass_that_makes_the_same_requests_is_planned(llm: ChatParrot) -> None:
    def build() -> Runnable[Any, Any]:
        model = Named(base_url=llm.base_url, max_retries=0)
        return ask("Name {x}", model) | ask("Draw {y}", model.bind(stop=["z"]))

    assert claims(build, "it") == (2, 2, 2)


def test_a_subclass_with_requests_of_its_own_is_a_break_that_says_by_what(llm: ChatParrot) -> None:
    CALLED.clear()
    model = Polite(base_url=llm.base_url, temperature=0, max_retries=0)
    assert "has a request_body of its own" in compile(model).explain("Hello")
    assert CALLED == []
    chain = {"x": RunnablePassthrough()} | ask("Name {x}", model)
    assert claims(lambda: chain, "it") == (0, 1, 0)
