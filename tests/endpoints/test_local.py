"""The endpoint around an engine of this process."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from parrot_backend.endpoints.base import Job
from parrot_backend.endpoints.lengths import characters
from parrot_backend.endpoints.local import LocalEndpoint
from parrot_backend.engines.base import ModelCard
from parrot_backend.engines.torch_engine import TorchEngine
from parrot_backend.engines.torch_engine.tokenizer import Tokenizer
from parrot_backend.wire.errors import ContextLengthError
from parrot_backend.wire.messages import ChatMessage
from parrot_backend.wire.protocol import ChatRequest
from parrot_backend.wire.text_protocol import LLMRequest, PromptRequest
from parrot_backend.wire.tools import FunctionCall, ToolCall
from tests.doubles import ScriptedEngine


async def test_it_is_ready_until_it_is_closed_or_its_engine_has_ended() -> None:
    engine = ScriptedEngine()
    endpoint = LocalEndpoint(engine)
    assert endpoint.state == "ready"
    engine.dead = "out of memory"
    assert endpoint.state == "dead"
    closed = LocalEndpoint(ScriptedEngine())
    await closed.aclose()
    assert closed.state == "dead"


async def test_hints_are_encoded_one_at_a_time_and_chats_do_not_wait_for_them() -> None:
    engine, encoded, go_on = ScriptedEngine(), [], threading.Event()

    def encode(messages: Sequence[ChatMessage], *_: Any, **__: Any) -> list[int]:
        encoded.append(messages[0].content)
        if messages[0].content.startswith("hint"):
            go_on.wait(10)
        return [1]

    engine.encode = encode  # type: ignore[method-assign]
    endpoint = LocalEndpoint(engine)
    forget = [endpoint.expect([chat(f"hint {n}")], "") for n in range(256)]
    await asyncio.sleep(0.05)
    assert await asyncio.wait_for(endpoint.tokenize(chat("now")), 5) == [1]
    assert encoded == ["hint 0", "now"]
    for each in forget[:-1]:
        each()
    await asyncio.sleep(0)
    go_on.set()
    while not engine.expected:  # noqa: ASYNC110 - another thread makes it true
        await asyncio.sleep(0.01)
    assert encoded == ["hint 0", "now", "hint 255"], "what was forgotten cost nothing"
    await endpoint.aclose()


MEBIBYTE = 2**20
TOO_LONG: dict[str, Callable[[], LLMRequest]] = {
    "a message": lambda: chat("parrots " * (30 * MEBIBYTE // 8)),
    "many messages": lambda: chat(*["parrots " * 875] * 4096),
    "a prompt": lambda: PromptRequest(prompt="parrots " * (30 * MEBIBYTE // 8)),
}


def chat(*contents: str) -> ChatRequest:
    return ChatRequest(messages=[ChatMessage(role="user", content=text) for text in contents])


@pytest.mark.parametrize("kind", TOO_LONG)
async def test_what_cannot_fit_is_known_before_the_engine_sees_it(kind: str) -> None:
    engine = ScriptedEngine()
    engine.model = ModelCard("scripted", 1000, longest_text=9000)
    endpoint = LocalEndpoint(engine)
    for encode in (engine.encode, engine.tokenize):
        setattr(engine, encode.__name__, lambda *_, **__: pytest.fail("it was tokenized"))
    with pytest.raises(ContextLengthError, match="characters and 'scripted' has") as refusal:
        await anext(endpoint.generate(Job(TOO_LONG[kind]())))
    assert (refusal.value.status, refusal.value.code) == (400, "context_length_exceeded")
    with pytest.raises(ContextLengthError, match="characters"):
        await endpoint.tokenize(TOO_LONG[kind]())


def test_the_arguments_of_calls_count() -> None:
    function = FunctionCall(name="f", arguments="x" * 50)
    call = ToolCall(id="call00000", function=function)
    asked = ChatRequest(messages=[ChatMessage(role="assistant", content="abc", tool_calls=[call])])
    assert characters(asked) == 53
    assert characters(PromptRequest(prompt=[1, 2, 3])) == 0


@pytest.mark.model
@pytest.mark.parametrize("kind", [*TOO_LONG, "a long prompt", "a long chat"])
async def test_with_the_real_tokenizer_it_takes_no_time(
    engine: TorchEngine, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is within the longest text by its characters is tokenized until the context is full."""
    encode, seen = Tokenizer.encode, []

    def spy(tokenizer: Tokenizer, text: str, **options: Any) -> list[int]:
        seen.append(len(text))
        return encode(tokenizer, text, **options)

    asked = TOO_LONG.get(kind, lambda: LONG[kind])()
    monkeypatch.setattr(Tokenizer, "encode", spy)
    start = time.perf_counter()
    with pytest.raises(ContextLengthError):
        await anext(LocalEndpoint(engine).generate(Job(asked)))
    assert time.perf_counter() - start < 1
    assert seen == ([2**16] * 2 if kind in LONG else [])


LONG: dict[str, LLMRequest] = {
    "a long prompt": PromptRequest(prompt="parrots " * 60_000),
    "a long chat": chat(*["parrots " * 1000] * 60),
}
