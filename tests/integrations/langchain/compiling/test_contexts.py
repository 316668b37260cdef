"""The original runs in the caller's own context, as it does natively."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar, copy_context
from typing import Any

import pytest
from langchain_core.runnables import Runnable

from parrot_integrations.client import active_sessions
from parrot_integrations.langchain import ChatParrot, compile
from tests.integrations.langchain.compiling.chains import ask

SEEN: ContextVar[str] = ContextVar("seen", default="nothing")


class Telling(Runnable[str, str]):
    """Sets a context variable, and says what it was."""

    def invoke(self, input: str, config: Any = None, **kwargs: Any) -> str:
        before = SEEN.get()
        SEEN.set(input)
        return before

    async def ainvoke(self, input: str, config: Any = None, **kwargs: Any) -> str:
        return self.invoke(input)

    def stream(self, input: str, config: Any = None, **kwargs: Any) -> Iterator[str]:
        yield self.invoke(input)
        yield self.invoke(input * 2)

    async def astream(self, input: str, config: Any = None, **kwargs: Any) -> AsyncIterator[str]:
        yield self.invoke(input)
        yield self.invoke(input * 2)


async def _ainvoke(chain: Any) -> Any:
    return await chain.ainvoke("a"), SEEN.get(), await chain.ainvoke("b"), SEEN.get()


async def _astream(chain: Any) -> Any:
    return [(item, SEEN.get()) async for item in chain.astream("a")], SEEN.get()


async def _astream_over_tasks(chain: Any) -> Any:
    stream = chain.astream("a")
    items = [await asyncio.create_task(anext(stream)), SEEN.get()]
    return [*items, await anext(stream), SEEN.get(), await anext(stream, "end")]


MODES: dict[str, Callable[[Any], Any]] = {
    "invoke": lambda chain: (chain.invoke("a"), SEEN.get(), chain.invoke("b"), SEEN.get()),
    "batch": lambda chain: (chain.batch(["a"]), SEEN.get(), chain.batch(["b", "c"]), SEEN.get()),
    "stream": lambda chain: ([(item, SEEN.get()) for item in chain.stream("a")], SEEN.get()),
    "transform": lambda chain: (list(chain.transform(iter("ab"))), SEEN.get()),
    "ainvoke": lambda chain: asyncio.run(_ainvoke(chain)),
    "astream": lambda chain: asyncio.run(_astream(chain)),
    "astream over tasks": lambda chain: asyncio.run(_astream_over_tasks(chain)),
}


@pytest.mark.parametrize("mode", MODES)
def test_what_a_runnable_sets_is_set(mode: str) -> None:
    expected = copy_context().run(MODES[mode], Telling())
    assert copy_context().run(MODES[mode], compile(Telling())) == expected


def test_what_a_run_sets_itself_is_gone_when_it_is_not_at_work(scripted_url: str) -> None:
    llm = ChatParrot(base_url=scripted_url, temperature=0)
    compiled = compile(ask("Name {x}", llm) | ask("Draw {y}", llm))
    for _ in compiled.stream("it"):
        assert active_sessions.get() == {}
    stream = compiled.stream("it")
    next(stream)
    assert active_sessions.get() == {}
    copy_context().run(stream.close)

    async def streamed() -> None:
        stream = compiled.astream("it")
        await asyncio.create_task(anext(stream))
        assert active_sessions.get() == {}
        await asyncio.create_task(stream.aclose())
        async for _ in compiled.astream("it"):
            assert active_sessions.get() == {}

    asyncio.run(streamed())
