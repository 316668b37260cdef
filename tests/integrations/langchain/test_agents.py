"""LangChain's agents on `ChatParrot`, unchanged: tools are really called, with valid arguments."""

from collections.abc import Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRequest, wrap_model_call
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from parrot_integrations.langchain import ChatParrot
from tests.doubles import ScriptedEngine
from tests.servers import serving
from tests.tools import written

ASKED: list[tuple[int, int]] = []


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    ASKED.append((a, b))
    return a + b


class Sum(BaseModel):
    """The answer to a question about numbers."""

    total: int = Field(ge=0, le=99)


@wrap_model_call
def first_a_tool_then_an_answer(request: ModelRequest, handler: Any) -> Any:
    """A small model does not choose well: it must call a tool, once, and then may not any more."""
    answered = any(isinstance(message, ToolMessage) for message in request.messages)
    return handler(request.override(tool_choice="none" if answered else "any"))


@pytest.fixture(autouse=True)
def asked() -> list[tuple[int, int]]:
    ASKED.clear()
    return ASKED


def script(prompt: str) -> str:
    """The engine's answers: it asks for a tool, and tells what it got."""
    if "Use json." in prompt:
        return '{"total": 5}'
    if prompt.endswith("2 and 3?"):
        return written("add", a=2, b=3)
    return "It is 5."


@pytest.fixture(scope="module")
def scripted() -> Iterator[ChatParrot]:
    with serving(ScriptedEngine(script)) as url:
        yield ChatParrot(base_url=url, temperature=0)


def question(text: str = "What is 2 and 3?") -> dict[str, Any]:
    return {"messages": [HumanMessage(text)]}


async def test_the_loop(scripted: ChatParrot) -> None:
    agent = create_agent(scripted, [add])
    for result in (agent.invoke(question()), await agent.ainvoke(question())):
        human, call, answer, last = result["messages"]
        assert isinstance(human, HumanMessage)
        assert call.tool_calls[0]["args"] == {"a": 2, "b": 3}
        assert (answer.content, answer.tool_call_id) == ("5", call.tool_calls[0]["id"])
        assert last.content == "It is 5."
    assert ASKED == [(2, 3), (2, 3)]
    await scripted.client.aclose()


def test_messages_are_streamed(scripted: ChatParrot) -> None:
    agent = create_agent(scripted, [add])
    streamed = list(agent.stream(question(), stream_mode="messages"))
    text = "".join(m.text for m, _ in streamed if m.type == "AIMessageChunk")
    arguments = "".join(
        piece["args"] or "" for m, _ in streamed for piece in getattr(m, "tool_call_chunks", [])
    )
    assert (text, arguments) == ("It is 5.", '{"a": 2, "b": 3}')


def test_a_response_format_is_native_by_default(scripted: ChatParrot) -> None:
    agent = create_agent(scripted, [add], response_format=Sum)
    result = agent.invoke(question("Use json."))
    assert result["structured_response"] == Sum(total=5)
    assert ASKED == []


@pytest.mark.model
def test_the_real_model_calls_tools_with_valid_arguments(base_url: str) -> None:
    llm = ChatParrot(
        base_url=base_url,
        temperature=0,
        max_tokens=48,
        model_kwargs={"parallel_tool_calls": False},
    )
    agent = create_agent(llm, [add], middleware=[first_a_tool_then_an_answer])
    messages = agent.invoke(question("Add 17 and 25."))["messages"]
    assert [type(message) for message in messages] == [
        HumanMessage,
        AIMessage,
        ToolMessage,
        AIMessage,
    ]
    ((a, b),) = ASKED
    assert messages[1].tool_calls[0]["args"] == {"a": a, "b": b}
    assert messages[2].content == str(a + b)
    assert messages[3].text


@pytest.mark.model
@pytest.mark.parametrize("strategy", [ProviderStrategy, ToolStrategy])
def test_the_real_model_gives_a_structured_response(base_url: str, strategy: Any) -> None:
    llm = ChatParrot(
        base_url=base_url,
        temperature=0,
        max_tokens=48,
        model_kwargs={"parallel_tool_calls": False},
    )
    agent = create_agent(llm, [], response_format=strategy(Sum))
    result = agent.invoke(question("What is 17 and 25?"))
    assert isinstance(result["structured_response"], Sum)
