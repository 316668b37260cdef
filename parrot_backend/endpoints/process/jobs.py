"""What the child runs for its server, and what it tells of it."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from functools import partial
from typing import Any

from parrot_backend.endpoints.base import Endpoint, Job
from parrot_backend.endpoints.process import frames
from parrot_backend.endpoints.process.troubles import Trouble
from parrot_backend.engines.base import Delta, EngineStats
from parrot_backend.wire.errors import EngineError, ParrotError
from parrot_backend.wire.text_protocol import LLMRequest

logger = logging.getLogger(__name__)

GATHER_SECONDS = 0.001
STATS_SECONDS = 0.1
MAX_DELTAS = 4096
"""In one frame, so that a server which has fallen behind reads on in pieces."""


class Jobs:
    """Runs jobs on `endpoint`, each in a task of its own.

    What they produce within a millisecond, as all sequences of one engine step do, goes out as one
    frame; where the server reads slowly, more of it does. Where there is nothing to tell for
    `heartbeat_seconds`, a frame tells that we live.
    """

    def __init__(self, endpoint: Endpoint, heartbeat_seconds: float) -> None:
        self._endpoint = endpoint
        self._heartbeat_seconds = heartbeat_seconds
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._hints: dict[int, Callable[[], None]] = {}
        self._deltas: list[tuple[int, Delta]] = []
        self._tokenized: list[tuple[int, list[int]]] = []
        self._failed: list[tuple[int, Trouble]] = []
        self._news = asyncio.Event()
        self._told = EngineStats()
        self._told_at = 0.0

    def take(self, frame: frames.Frame) -> None:
        """Begin what a frame asks for."""
        match frame:
            case frames.Generate(number, job):
                self._begin(number, self._generate(number, job))
            case frames.Tokenize(number, request):
                self._begin(number, self._tokenize(number, request))
            case frames.Cancel(number):
                if task := self._tasks.get(number):
                    task.cancel()
            case frames.Expect(number, examples, tenant):
                self._hints[number] = self._endpoint.expect(examples, tenant)
            case frames.Forget(number):
                if forget := self._hints.pop(number, None):
                    forget()

    async def send(self, writer: asyncio.StreamWriter) -> None:
        """Tell what there is to tell, or that we live; until it is cancelled or nobody listens.

        An endpoint that has died is told by the end of this process, and what it ran is run again.
        """
        beating = asyncio.create_task(self._beat(), name="beat")
        try:
            while not writer.is_closing():
                await self._news.wait()
                if self._endpoint.state == "dead":
                    return
                # What the same step gave to others comes meanwhile: one by one, from a thread that
                # needs the interpreter for it, and gets it while we sleep.
                await asyncio.sleep(GATHER_SECONDS if len(self._tasks) > 1 else 0)
                writer.write(frames.encoded(self._progress()))
                await writer.drain()
        except ConnectionError:
            return
        finally:
            beating.cancel()

    async def aclose(self) -> None:
        """Stop the endpoint, and with it whatever runs."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self._endpoint.aclose()

    async def _beat(self) -> None:
        """The load changes also where no job has anything to say, as when one was cancelled."""
        while True:
            await asyncio.sleep(min(STATS_SECONDS, self._heartbeat_seconds))
            silent = time.monotonic() - self._told_at
            if silent >= self._heartbeat_seconds or self._endpoint.stats() != self._told:
                self._news.set()

    def _progress(self) -> frames.Progress:
        deltas, self._deltas = self._deltas[:MAX_DELTAS], self._deltas[MAX_DELTAS:]
        tokenized, self._tokenized = self._tokenized, []
        failed: list[tuple[int, Trouble]] = []
        if not self._deltas:  # a failure comes behind what it ends
            failed, self._failed = self._failed, []
            self._news.clear()
        self._told, self._told_at = self._endpoint.stats(), time.monotonic()
        return frames.Progress(self._told, deltas, tokenized, failed)

    def _begin(self, number: int, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks[number] = asyncio.create_task(work, name=f"job {number}")
        task.add_done_callback(partial(self._end, number))

    def _end(self, number: int, task: asyncio.Task[None]) -> None:
        del self._tasks[number]
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not isinstance(error, ParrotError):
            logger.error("job %d failed", number, exc_info=error)
        self._failed.append((number, Trouble.of(error)))
        self._news.set()

    async def _generate(self, number: int, job: Job) -> None:
        reason = None
        async with aclosing(self._endpoint.generate(job)) as deltas:
            async for delta in deltas:
                reason = delta.finish_reason
                self._deltas.append((number, delta))
                self._news.set()
        if reason is None:
            raise EngineError("the engine ended the answer without a reason")

    async def _tokenize(self, number: int, request: LLMRequest) -> None:
        self._tokenized.append((number, await self._endpoint.tokenize(request)))
        self._news.set()
