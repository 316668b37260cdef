"""LlamaIndex's agents with `Parrot`: those that call tools, those that write calls, and several."""

from collections.abc import Iterator

import pytest
from llama_index.core.agent.workflow import AgentStream, AgentWorkflow, FunctionAgent, ReActAgent

from parrot_integrations.llama_index import Parrot
from tests.doubles import ScriptedEngine
from tests.integrations.llama_index.models.scripted import get_weather, now
from tests.servers import serving
from tests.tools import written

# LlamaIndex's workflows look at all attributes of an agent, also at those that pydantic retires.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:is_running called from within a step"),
]

TOOLS = [get_weather, now]


def script(prompt: str) -> str:
    """What a model may say: it looks at the end of the prompt only."""
    if prompt.rstrip().endswith("Observation: Lima is sunny"):
        return "Thought: I can answer.\nAnswer: sunny, as I read"
    if "Action Input" in prompt:
        return 'Thought: I look.\nAction: get_weather\nAction Input: {"city": "Lima"}'
    if prompt.endswith("sunny"):
        return "So it is sunny."
    if prompt.endswith("sunnynoon"):
        return "Sunny at noon."
    if prompt.endswith("both?"):
        return f"{written('get_weather', city='Lima')}\n{written('now')}"
    if prompt.endswith("handoff?"):
        return written("handoff", to_agent="teller", reason="he knows")
    if "teller" in prompt:
        return "I am the teller."
    return written("get_weather", city="Lima")


@pytest.fixture(scope="module")
def llm() -> Iterator[Parrot]:
    with serving(ScriptedEngine(script)) as url:
        yield Parrot(base_url=url, temperature=0)


async def test_an_agent_calls_a_tool_and_answers(llm: Parrot) -> None:
    agent = FunctionAgent(tools=TOOLS, llm=llm)
    handler = agent.run("weather?")
    streamed = [event async for event in handler.stream_events() if isinstance(event, AgentStream)]
    result = await handler
    assert str(result) == "So it is sunny."
    assert [call.tool_name for call in result.tool_calls] == ["get_weather"]
    assert "".join(event.delta for event in streamed) == "So it is sunny."
    assert any(event.tool_calls for event in streamed)


async def test_an_agent_calls_several_tools_at_once(llm: Parrot) -> None:
    result = await FunctionAgent(tools=TOOLS, llm=llm).run("both?")
    assert {call.tool_name for call in result.tool_calls} == {"get_weather", "now"}


async def test_an_agent_without_streaming(llm: Parrot) -> None:
    if "streaming" not in FunctionAgent.model_fields:
        pytest.skip("streams always")
    result = await FunctionAgent(tools=TOOLS, llm=llm, streaming=False).run("weather?")
    assert str(result) == "So it is sunny."


async def test_an_agent_that_writes_its_calls(llm: Parrot) -> None:
    result = await ReActAgent(tools=TOOLS, llm=llm).run("weather?")
    assert str(result) == "sunny, as I read"


async def test_agents_that_hand_over(llm: Parrot) -> None:
    asker = FunctionAgent(
        name="asker", description="asks", tools=TOOLS, llm=llm, can_handoff_to=["teller"]
    )
    teller = FunctionAgent(
        name="teller", description="tells", tools=[], llm=llm, system_prompt="You are the teller."
    )
    result = await AgentWorkflow(agents=[asker, teller], root_agent="asker").run("handoff?")
    assert str(result) == "I am the teller."
    assert result.current_agent_name == "teller"
