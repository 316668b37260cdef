"""LlamaIndex's agents on `Parrot`, unchanged: tools are called, and a run is one conversation."""

import asyncio
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.tools import FunctionTool
from llama_index.core.workflow import Context

from parrot_integrations.llama_index import Parrot
from tests.doubles import ScriptedEngine
from tests.integrations.llama_index.seen import Opened
from tests.servers import serving
from tests.tools import written

# The framework looks through its agents for steps, and so at what pydantic has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ASKED: list[tuple[int, int]] = []


def add(a: int, b: int) -> int:
    """Add two numbers."""
    ASKED.append((a, b))
    return a + b


def script(prompt: str) -> str:
    """The engine's answers: it asks for a tool, or for another agent, and tells what it got."""
    if prompt.endswith("2 and 3?"):
        return written("add", a=2, b=3)
    if prompt.endswith("Who adds?"):
        return written("handoff", to_agent="adder", reason="sums")
    return "It is 5."


@pytest.fixture(scope="module")
def llm() -> Iterator[Parrot]:
    with serving(ScriptedEngine(script)) as url:
        yield Parrot(base_url=url, temperature=0)


@pytest.fixture
def opened(llm: Parrot) -> Opened:
    return Opened(llm)


@pytest.fixture(autouse=True)
def asked() -> None:
    ASKED.clear()


def agent(llm: Parrot, **kwargs: Any) -> FunctionAgent:
    return FunctionAgent(llm=llm, tools=[FunctionTool.from_defaults(add)], **kwargs)


async def test_a_run_is_one_thread_and_one_conversation(llm: Parrot, opened: Opened) -> None:
    result = await agent(llm).run("What is 2 and 3?")
    assert str(result) == "It is 5."
    assert ASKED == [(2, 3)]
    graph = opened.graph()
    assert graph.conversations == [["request/1", "request/2"]]
    assert graph.groups == [], "a turn has no siblings"


async def test_runs_with_one_memory_are_one_conversation(llm: Parrot, opened: Opened) -> None:
    memory = ChatMemoryBuffer.from_defaults()
    for question in ("What is 2 and 3?", "And?", "Now, what is 2 and 3?"):
        await agent(llm).run(question, memory=memory)
    graph = opened.graph()
    assert graph.conversations == [[f"request/{n}" for n in range(1, 6)]]


@pytest.mark.skipif(
    not version("llama-index-workflows").startswith("1."),
    reason="the framework does not show the context of a run",
)
async def test_runs_in_one_context_are_one_conversation(llm: Parrot, opened: Opened) -> None:
    adder = agent(llm)
    context = Context(adder)
    for question in ("What is 2 and 3?", "And?"):
        await adder.run(question, ctx=context)
    graph = opened.graph()
    assert graph.conversations == [[f"request/{n}" for n in range(1, 4)]]


async def test_agents_of_many_users_do_not_mix(llm: Parrot, opened: Opened) -> None:
    adder = agent(llm)
    await asyncio.gather(*(adder.run("What is 2 and 3?") for _ in range(3)))
    assert [view.unplanned for view in opened.views()] == [2, 2, 2]


async def test_agents_that_hand_over_are_one_thread(llm: Parrot, opened: Opened) -> None:
    front = FunctionAgent(
        llm=llm, name="front", description="Asks.", tools=[], can_handoff_to=["adder"]
    )
    adder = agent(llm, name="adder", description="Adds.")
    result = await AgentWorkflow([front, adder], root_agent="front").run("Who adds?")
    assert str(result) == "It is 5."
    graph = opened.graph()
    assert graph.conversations == [["request/1", "request/2"]]


@pytest.mark.model
async def test_the_real_model_s_turns_are_one_conversation(base_url: str) -> None:
    llm = Parrot(base_url=base_url, temperature=0, max_tokens=48)
    opened = Opened(llm)
    await agent(llm, initial_tool_choice="add").run("What is 17 and 25?", max_iterations=4)
    assert ASKED
    graph = opened.graph()
    assert len(graph.conversations) == 1
    first, second, *_ = graph.calls
    assert second.cached_tokens > first.prompt_tokens // 2, "a turn starts where the last one ended"
