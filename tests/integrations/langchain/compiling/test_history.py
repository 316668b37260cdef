"""`RunnableWithMessageHistory`: what is called with the history is planned when it has been read."""

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import Runnable
from langchain_core.runnables.history import RunnableWithMessageHistory

from parrot_integrations.langchain import ChatParrot, compile
from tests.doubles import ScriptedEngine
from tests.integrations.langchain.compiling.chains import ask
from tests.integrations.langchain.compiling.claims import MODES, SINGLE, claims
from tests.integrations.langchain.compiling.watching import submitting
from tests.servers import serving

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated")

CONFIG: dict[str, Any] = {"configurable": {"session_id": "s"}}


@pytest.fixture(scope="module")
def llm() -> Iterator[ChatParrot]:
    with serving(ScriptedEngine(lambda prompt: prompt[::-1][:20])) as url:
        yield ChatParrot(base_url=url, temperature=0, max_retries=0)


def remembering(llm: ChatParrot, histories: dict[str, Any]) -> Runnable[Any, Any]:
    """Two calls with a history of two messages."""

    def history(session_id: str) -> InMemoryChatMessageHistory:
        return histories[session_id]

    for name in ("s", "t"):
        histories[name] = InMemoryChatMessageHistory()
        histories[name].add_user_message("Hello")
        histories[name].add_ai_message("Good day")
    prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("human", "{q}")])
    chain = prompt | llm | StrOutputParser() | ask("Polish {x}", llm)
    return RunnableWithMessageHistory(
        chain, history, input_messages_key="q", history_messages_key="history"
    )


@pytest.mark.parametrize("mode", SINGLE)
def test_it_is_planned_when_the_history_has_been_read(mode: str, llm: ChatParrot) -> None:
    kept: list[dict[str, Any]] = []

    def build() -> Runnable[Any, Any]:
        kept.append({})
        return remembering(llm, kept[-1])

    assert claims(build, {"q": "Who?"}, mode, CONFIG) == (0, 2, 2)
    first, second = (histories["s"].messages for histories in kept)
    assert [m.content for m in first] == [m.content for m in second]
    assert len(first) == 4


@pytest.mark.parametrize("mode", ["batch", "abatch"])
def test_each_of_a_batch_has_its_own(mode: str, llm: ChatParrot) -> None:
    sessions: list[Any] = []
    configs = [{"configurable": {"session_id": name}} for name in "st"]
    inputs = [{"q": "One?"}, {"q": "Two?"}]
    compiled = submitting(remembering(llm, {}), sessions.append)
    found = MODES[mode](compiled, inputs, configs)
    assert found == MODES[mode](remembering(llm, {}), inputs, configs)
    assert (sessions[0].final.claimed, sessions[0].final.unplanned) == (4, 0)


def test_explain_says_what_it_waits_for(llm: ChatParrot) -> None:
    told = compile(remembering(llm, {})).explain({"q": "Who?"}, CONFIG)  # type: ignore[arg-type]
    assert "reads a history, which planning does not" in told
