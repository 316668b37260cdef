"""`barrier`: nothing behind it starts before the run has passed it."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough

from parrot_integrations.langchain import ChatParrot, barrier, compile
from tests.doubles import ScriptedEngine
from tests.integrations.langchain.compiling import watching
from tests.integrations.langchain.compiling.chains import ask
from tests.integrations.langchain.compiling.claims import MODES, SINGLE, claims
from tests.integrations.langchain.compiling.watching import Recorder
from tests.servers import serving


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def llm(engine: ScriptedEngine) -> Iterator[ChatParrot]:
    with serving(engine) as url:
        yield ChatParrot(base_url=url, temperature=0, max_retries=0)


def refuse(text: str) -> str:
    if "secret" in text:
        time.sleep(0.3)  # a guard that asks somebody
        raise ValueError("refused")
    return text


def guarded(llm: ChatParrot, between: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """What is guarded does not depend on what the guard gives."""
    checked = {"checked": RunnableLambda(refuse), "x": RunnablePassthrough()}
    return checked | between | ask("Tell {x}", llm) | ask("Sign {y}", llm)


@pytest.mark.parametrize("mode", ["invoke", "ainvoke", "stream"])
def test_a_guard_is_not_overtaken_across_a_barrier(
    mode: str, llm: ChatParrot, engine: ScriptedEngine
) -> None:
    with pytest.raises(ValueError, match="refused"):
        MODES[mode](compile(guarded(llm, barrier())), "a secret", {})
    assert engine.started == []
    with pytest.raises(ValueError, match="refused"):
        MODES[mode](compile(guarded(llm, RunnablePassthrough())), "a secret", {})
    assert "Tell a secret" in engine.started, "as the documentation says"


def refuse_readably(text: str) -> str:
    if "secret" in text:
        raise ValueError("refused")
    return text


@pytest.mark.parametrize("mode", ["invoke", "ainvoke", "stream"])
def test_a_guard_that_can_be_read_is_not_overtaken(
    mode: str, llm: ChatParrot, engine: ScriptedEngine
) -> None:
    checked = {"checked": RunnableLambda(refuse_readably), "x": RunnablePassthrough()}
    compiled = compile(checked | ask("Tell {x}", llm) | ask("Sign {y}", llm))
    assert "raises at line" in compiled.explain("a secret")
    with pytest.raises(ValueError, match="refused"):
        MODES[mode](compiled, "a secret", {})
    assert engine.started == []
    MODES[mode](compiled, "a word", {})
    assert "Tell a word" in engine.started


def test_a_guard_refuses_one_input_of_a_batch(llm: ChatParrot, engine: ScriptedEngine) -> None:
    checked = {"checked": RunnableLambda(refuse_readably), "x": RunnablePassthrough()}
    compiled = compile(checked | ask("Tell {x}", llm) | ask("Sign {y}", llm))
    results = compiled.batch(["a secret", "a word"], return_exceptions=True)
    assert isinstance(results[0], ValueError)
    assert isinstance(results[1], str)
    assert "Tell a secret" not in engine.started


@pytest.mark.parametrize("mode", MODES)
def test_what_has_passed_is_planned(mode: str, llm: ChatParrot) -> None:
    found = claims(lambda: guarded(llm, barrier()), "a word", mode)
    assert found == ((0, 2, 2) if mode in SINGLE else (0, 4, 4))


@pytest.mark.parametrize("mode", [watching.invoke, watching.ainvoke, watching.astream])
def test_nothing_of_it_is_seen(mode: Any, llm: ChatParrot) -> None:
    """Not even that a stream passes it: chunks go through as they come."""
    recorder = Recorder()
    chain = llm | barrier()
    found = mode(chain, "Hello", {"callbacks": [recorder]})
    assert not [event for event in recorder.events if "Barrier" in str(event[1])]
    if mode is watching.astream:
        assert len(found) > 5


def test_explain_tells_of_it(llm: ChatParrot) -> None:
    told = compile(barrier() | ask("Tell {x}", llm)).explain("a word")
    assert "Barrier: is a barrier, as you asked for" in told
    assert "planned when the run has passed it" in told
