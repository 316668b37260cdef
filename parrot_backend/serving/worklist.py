"""A worklist: what follows from what has happened, done in order and without holding up the loop."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any

logger = logging.getLogger(__name__)

SLICE_SECONDS = 0.008
"""A worklist works for so long before others have their turn."""


class Worklist:
    """Acts that are done one after the other, those that come up meanwhile included.

    What is short is done before `run` returns; the rest goes on in later turns of the event loop.

    Args:
        when_empty: called each time when all has been done.
    """

    def __init__(self, when_empty: Callable[[], None]) -> None:
        self._when_empty = when_empty
        self._acts: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._working = False
        self._waiting: list[asyncio.Future[None]] = []

    def add(self, act: Callable[..., None], *arguments: Any) -> None:
        """Have something done behind what is there; `run` starts it."""
        self._acts.append((act, arguments))

    def run(self) -> None:
        """Work; where it is at work already, or has still to go on, that will come to it."""
        if not self._working:
            self._working = True
            self._work()

    async def emptied(self) -> None:
        """Wait until all has been done."""
        if self._working:
            self._waiting.append(asyncio.get_running_loop().create_future())
            await self._waiting[-1]

    def _work(self) -> None:
        until = perf_counter() + SLICE_SECONDS
        while self._acts:
            if perf_counter() > until:
                asyncio.get_running_loop().call_soon(self._work)
                return
            act, arguments = self._acts.popleft()
            try:
                act(*arguments)
            except Exception:
                logger.exception("%s failed", act)
        self._working = False
        self._when_empty()
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)
