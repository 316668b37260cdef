"""The choices of one request: each is a call of its own, and they are read together."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from parrot_backend.engines.base import Delta
from parrot_backend.protocol import ChatRequest
from parrot_backend.serving.call import Call


def start(request: ChatRequest, run: Callable[[ChatRequest], Call]) -> list[Call]:
    """Start a call for each choice that is asked for; all or none.

    Raises:
        ParrotError: one could not be started.
    """
    calls: list[Call] = []
    try:
        for choice in request.choices():
            calls.append(run(choice))
    except Exception:
        for call in calls:
            call.abandon()
        raise
    return calls


async def read(calls: list[Call]) -> AsyncGenerator[tuple[int, Delta], None]:
    """What all calls produce, as it comes, each delta with the index of its call.

    Leaving it leaves every call.

    Raises:
        ParrotError: a call failed or was cancelled.
    """
    news: asyncio.Queue[tuple[int, Delta] | Exception | None] = asyncio.Queue()
    tasks = [asyncio.create_task(_forward(index, call, news)) for index, call in enumerate(calls)]
    unfinished = len(calls)
    try:
        while unfinished:
            item = await news.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                unfinished -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # A task that is cancelled before its first step never read, and so never left.
        for call in calls:
            call.abandon()


async def _forward(
    index: int, call: Call, news: asyncio.Queue[tuple[int, Delta] | Exception | None]
) -> None:
    try:
        async with aclosing(call.read()) as deltas:
            async for delta in deltas:
                news.put_nowait((index, delta))
        news.put_nowait(None)
    except Exception as error:
        news.put_nowait(error)
