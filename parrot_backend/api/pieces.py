"""Work on the event loop in pieces, so that nothing else waits for long while something big is done.

A thread would be of no help: JSON and validation hold the interpreter's lock for as long as one call of
theirs takes, and each write to a socket would wait for the thread's next pause.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import closing
from typing import TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]
"""Work that stops where others may run; a piece of it takes about a millisecond."""

SLICE_SECONDS = 0.004


class Pieces:
    """Does the big work of one event loop, in turns: between two slices everybody else runs."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def run(self, steps: Steps[T]) -> T:
        """The result of the steps; what takes no longer than one slice is done at once."""
        while True:
            async with self._turn:
                end = time.perf_counter() + SLICE_SECONDS
                try:
                    while time.perf_counter() < end:
                        next(steps)
                except StopIteration as stop:
                    result: T = stop.value
                    return result
            await asyncio.sleep(0)

    async def each(self, items: Generator[T, None, None]) -> AsyncGenerator[T, None]:
        """The items, where each is a piece of work, as long as a slice at the most.

        They are closed at the end, also where that comes early.
        """
        with closing(items):
            while True:
                async with self._turn:
                    try:
                        item = next(items)
                    except StopIteration:
                        return
                yield item
                await asyncio.sleep(0)
