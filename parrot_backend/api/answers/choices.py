"""The choices of one request: each is a call of its own, and they are read together."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol, TypeVar

from parrot_backend.engines.base import Delta
from parrot_backend.serving.call import Call
from parrot_backend.wire.protocol import CallScope
from parrot_backend.wire.text_protocol import LLMRequest

ChoiceT = TypeVar("ChoiceT", covariant=True)


class HasChoices(Protocol[ChoiceT]):
    """A request that is answered by one call for each of its choices."""

    def choices(self) -> Sequence[ChoiceT]:
        """A request for each."""
        ...


class Take(Protocol):
    """Runs one request as a call, or claims the planned one that it is equal to."""

    def __call__(self, request: LLMRequest, scope: CallScope) -> Call:
        """Start it within a scope."""
        ...


# As many calls are started, or deltas of an answer that is there already taken and told, before others
# have a turn.
_STARTED, _TAKEN, _TOLD = 64, 64, 8


async def start(request: HasChoices[LLMRequest], take: Take, scope: CallScope) -> list[Call]:
    """Start a call for each choice that is asked for; all or none.

    Several are siblings: of each other, or of those in the group that the scope names.

    Raises:
        ParrotError: one could not be started.
    """
    choices = request.choices()
    if len(choices) > 1 and scope.group is None:
        group = {"group": f"choices-{secrets.token_hex(8)}", "group_size": len(choices)}
        scope = scope.model_copy(update=group)
    calls: list[Call] = []
    try:
        for choice in choices:
            calls.append(take(choice, scope))
            if not len(calls) % _STARTED:
                await asyncio.sleep(0)
    except BaseException:
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
    unfinished, told = len(calls), 0
    try:
        while unfinished:
            item = await news.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                unfinished -= 1
            else:
                yield item
                told += 1
                if not told % _TOLD and not news.empty():
                    await asyncio.sleep(0)
    finally:
        await _leave(tasks, calls)


async def wait(calls: list[Call]) -> None:
    """Until all have ended, for who wants their answers as a whole. Leaving it leaves every call.

    Raises:
        ParrotError: a call failed or was cancelled.
    """
    tasks = [asyncio.create_task(call.wait()) for call in calls]
    try:
        await asyncio.gather(*tasks)
    finally:
        await _leave(tasks, calls)


async def _leave(tasks: list[asyncio.Task[None]], calls: list[Call]) -> None:
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
                if not news.qsize() % _TAKEN:
                    await asyncio.sleep(0)
        news.put_nowait(None)
    except Exception as error:
        news.put_nowait(error)
