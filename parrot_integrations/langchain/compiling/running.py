"""One run of a compiled runnable, and how iterators are drawn from inside it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextvars import Context
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

from parrot_backend.wire.protocol import Objective
from parrot_integrations.langchain.compiling.native import RunObserver, current, make_current
from parrot_integrations.langchain.compiling.observed import Execution, aclose, close
from parrot_integrations.langchain.compiling.planner import StepPath
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.session import OnSession, PlannedRun

INPUT: StepPath = ("input",)
"""Where a stream's input is known from, when it has come to its end."""

_END: Any = object()


class CompiledRun(PlannedRun):
    """One run of a compiled runnable: `native` runs in `context`."""

    def __init__(
        self,
        native: Runnable[Any, Any],
        plan: Plan,
        objective: Objective | None,
        on_session: OnSession | None,
    ) -> None:
        super().__init__(plan, objective, on_session)
        self.native = native
        make_current(self.context, RunObserver(plan, self))


def input_chunks(outside: Context, chunks: Iterator[Any]) -> Iterator[Any]:
    """A stream's input, drawn in the context that it comes from; the plan starts at its end."""
    return _input().chunks(drawn(outside, chunks))


def ainput_chunks(outside: Context, chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """As `input_chunks`."""
    return _input().achunks(adrawn(outside, chunks))


def _input() -> Execution:
    return Execution(current(), INPUT, (0,), RunnableConfig())


def drawn(context: Context, iterator: Iterator[Any]) -> Iterator[Any]:
    """An iterator's items, each step towards them in a context."""
    try:
        while (item := context.run(next, iterator, _END)) is not _END:
            yield item
    finally:
        context.run(close, iterator)


async def adrawn(context: Context, iterator: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    """As `drawn`."""
    try:
        while (item := await _anext(iterator, context)) is not _END:
            yield item
    finally:
        await asyncio.create_task(aclose(iterator), context=context)


async def _anext(iterator: AsyncIterator[Any], context: Context) -> Any:
    async def step() -> Any:
        return await anext(iterator, _END)

    return await asyncio.create_task(step(), context=context)
