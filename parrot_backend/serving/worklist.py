"""A worklist: what follows from what has happened, done in order and without holding up the loop."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import Any
from weakref import WeakKeyDictionary

logger = logging.getLogger(__name__)

SLICE_SECONDS = 0.008
"""All worklists of a loop work for so long before others have their turn."""


class _Turn:
    """The budget of one turn of an event loop, which all worklists share.

    Those for which nothing is left wait in a row, and each goes on for a part of the next turn.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._until: float | None = None
        self._row: deque[Worklist] = deque()

    def until(self) -> float:
        """When this turn's budget is spent."""
        if self._until is None:
            self._until = perf_counter() + SLICE_SECONDS
            self._loop.call_soon(self._next)
        return self._until

    def wait(self, worklist: "Worklist") -> None:
        """Go on with it in a later turn."""
        self._row.append(worklist)

    def _next(self) -> None:
        self._until = None
        until = self.until() if self._row else 0.0
        for _ in range(len(self._row)):
            if perf_counter() > until:
                return
            worklist = self._row.popleft()
            worklist.work(perf_counter() + (until - perf_counter()) / (len(self._row) + 1))


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turn] = WeakKeyDictionary()


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

    def add_each(self, act: Callable[..., None], items: Iterable[Any], *arguments: Any) -> None:
        """As `add` for each item, which is its first argument; to have many costs as much as one."""
        self._acts.append((self._next_of, (act, iter(items), arguments)))

    def run(self) -> None:
        """Work; where it is at work already, or has still to go on, that will come to it."""
        if not self._working:
            self._working = True
            self.work(_turn().until())

    async def emptied(self) -> None:
        """Wait until all has been done."""
        if self._working:
            self._waiting.append(asyncio.get_running_loop().create_future())
            await self._waiting[-1]

    def work(self, until: float) -> None:
        """Do what there is, up to a time; what is left then waits for the next turn."""
        while self._acts:
            if perf_counter() > until:
                _turn().wait(self)
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

    def _next_of(
        self, act: Callable[..., None], items: Iterator[Any], arguments: tuple[Any, ...]
    ) -> None:
        for item in items:
            self._acts.appendleft((self._next_of, (act, items, arguments)))
            act(item, *arguments)
            return


def _turn() -> _Turn:
    loop = asyncio.get_running_loop()
    if (turn := _turns.get(loop)) is None:
        turn = _turns[loop] = _Turn(loop)
    return turn
