"""A plan is a hint: whatever goes wrong with it, the run does what the native one does."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import Runnable, RunnableLambda

from parrot_integrations.langchain import ChatParrot, compile
from parrot_integrations.langchain.compiling.planner import RULES
from parrot_integrations.planning.session import PlannedSession
from tests.doubles import ScriptedEngine
from tests.integrations.langchain.compiling import watching
from tests.integrations.langchain.compiling.chains import ask
from tests.integrations.langchain.compiling.watching import plain
from tests.servers import serving

BATCHES = (watching.batch, watching.abatch)
SINGLE = (watching.invoke, watching.ainvoke, watching.stream, watching.astream)
HALF = "half a pair: \ud83d"


@pytest.fixture(scope="module")
def llm() -> Iterator[ChatParrot]:
    with serving(ScriptedEngine(lambda prompt: prompt[::-1][:30])) as url:
        yield ChatParrot(base_url=url, temperature=0, max_retries=0)


def two_calls(llm: Any) -> Runnable[Any, Any]:
    return ask("Name {x}", llm) | ask("Draw {y}", llm)


def behind_a_break(llm: Any) -> Runnable[Any, Any]:
    return RunnableLambda(lambda x: x) | two_calls(llm)


@pytest.mark.parametrize("mode", BATCHES)
@pytest.mark.parametrize("build", [two_calls, behind_a_break])
def test_one_text_that_cannot_be_sent_is_left_out_of_the_plan(
    build: Callable[..., Any], mode: Callable[..., Any], llm: ChatParrot
) -> None:
    sessions: list[PlannedSession] = []
    inputs = ["one", HALF, "three"]
    expected = mode(build(llm), inputs, {}, return_exceptions=True)
    compiled = compile(build(llm), on_session=sessions.append)
    found = mode(compiled, inputs, {}, return_exceptions=True)
    assert plain(found) == plain(expected)
    assert isinstance(expected[1], UnicodeEncodeError)
    assert sessions[0].final is not None
    assert (sessions[0].final.planned, sessions[0].final.claimed) == (4, 4)


@pytest.mark.parametrize("mode", SINGLE)
@pytest.mark.parametrize("build", [two_calls, behind_a_break])
@pytest.mark.parametrize("fault", ["proxy", "key"])
def test_a_client_that_cannot_be_made_fails_in_the_model_alone(
    fault: str,
    build: Callable[..., Any],
    mode: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So a fallback answers. Without its library, a proxy is an ImportError."""
    if fault == "proxy":
        monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
        monkeypatch.setitem(sys.modules, "socksio", None)
    key = "ключ" if fault == "key" else None
    broken = ChatParrot(base_url="http://parrot.test:9", api_key=key, max_retries=0)
    llm = broken.with_fallbacks([FakeListChatModel(responses=["fallback"])])
    original = build(llm)
    assert mode(compile(original), "it", {}) == mode(original, "it", {})
    failing = build(broken)
    with pytest.raises((ImportError, ValueError), match=r"socksio|api_key") as expected:
        mode(failing, "it", {})
    with pytest.raises((ImportError, ValueError), match=r"socksio|api_key") as found:
        mode(compile(failing), "it", {})
    assert (found.type, str(found.value)) == (expected.type, str(expected.value))


@pytest.mark.parametrize("mode", SINGLE)
@pytest.mark.parametrize("build", [two_calls, behind_a_break])
def test_on_session_may_raise(
    build: Callable[..., Any],
    mode: Callable[..., Any],
    llm: ChatParrot,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At open, and where the session opens behind a break."""
    called: list[PlannedSession] = []

    def failing(session: PlannedSession) -> None:
        called.append(session)
        raise RuntimeError("on purpose")

    original = build(llm)
    assert mode(compile(original, on_session=failing), "it", {}) == mode(original, "it", {})
    assert called[0].final is not None
    assert called[0].final.claimed == 2
    assert "on purpose" in caplog.text


@pytest.mark.parametrize("mode", SINGLE)
@pytest.mark.parametrize("build", [two_calls, behind_a_break])
def test_a_rule_may_fail(
    build: Callable[..., Any],
    mode: Callable[..., Any],
    llm: ChatParrot,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def failing(*_: Any) -> Any:
        raise RuntimeError("a rule's own fault")

    monkeypatch.setitem(RULES, ChatParrot, failing)
    original = build(llm)
    assert mode(compile(original), "it", {}) == mode(original, "it", {})
    assert "a rule's own fault" in caplog.text
