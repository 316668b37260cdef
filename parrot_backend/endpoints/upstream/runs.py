"""`Runs`: jobs on an upstream, each over as many requests as it takes."""

import asyncio
import hashlib
import hmac
import math
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import httpx

from parrot_backend.endpoints.base import Job
from parrot_backend.endpoints.upstream.answers import Answer
from parrot_backend.endpoints.upstream.client import Client
from parrot_backend.endpoints.upstream.counts import Counts
from parrot_backend.endpoints.upstream.extras import Extras
from parrot_backend.endpoints.upstream.faults import (
    BusyError,
    KeyRefusedError,
    RefusedError,
    ShutOutError,
    lost,
)
from parrot_backend.endpoints.upstream.health import Health
from parrot_backend.endpoints.upstream.rate_limit import LONGEST_WAIT, MOST_TRIES, RateLimit
from parrot_backend.endpoints.upstream.recognize import Recognized
from parrot_backend.endpoints.upstream.requests import body_of, path_of, reader_for
from parrot_backend.endpoints.upstream.slots import Placed, Slots
from parrot_backend.endpoints.upstream.stream import Stream
from parrot_backend.endpoints.upstream.tools import does_tools
from parrot_backend.engines.base import Delta
from parrot_backend.wire.errors import EndpointLostError, EngineError, ParrotError, UnavailableError
from parrot_backend.wire.protocol import ChatRequest

_GLANCE_SECONDS = 1.0
_SHUT_OUT_SECONDS = 60.0
"""What it takes at least until somebody has paid, or has given another key."""


def _most(job: Job) -> float:
    """What an answer has no reason to go beyond: where tokens aren't told, pieces are counted."""
    asked = job.request.max_tokens
    return math.inf if asked is None else 8 * asked + 1024


@dataclass(slots=True)
class _Tries:
    """What has become of the requests of one job."""

    extras: Extras = field(default_factory=Extras)
    body: dict[str, Any] = field(default_factory=dict)
    told: bool = False
    refused: int = 0
    waited: float = 0.0
    broken: int = 0


class Runs:
    """What runs on one server, and what has been learned of it meanwhile."""

    def __init__(self, client: Client, health: Health, rate: RateLimit) -> None:
        self.waiting = 0
        self.counts = Counts()
        self._health = health
        self._client = client
        self._place = client.address.place
        self._rate = rate
        self._known: Recognized | None = None
        self._slots: Slots | None = None
        self._salt_key = secrets.token_bytes(32)
        self._asking: asyncio.Task[None] | None = None

    @property
    def known(self) -> Recognized:
        """What the server is, as far as that is known by now.

        Raises:
            UnavailableError: it has not been recognized yet.
        """
        if self._known is None:
            raise UnavailableError("the engine is starting: try again later")
        return self._known

    def meet(self, known: Recognized, own_slots: int) -> None:
        """This is the server now; of its own slots there are so many."""
        self._known = known
        self._slots = Slots(own_slots) if known.dialect.picks_slot else None

    async def run(self, job: Job) -> AsyncGenerator[Delta, None]:
        """Run a job.

        A server that is busy is asked again. A connection that breaks before the answer begins, as one
        that had been idle for too long does, is tried once more.

        Raises:
            ParrotError: see `Endpoint.generate`.
        """
        tries = _Tries()
        while True:
            await self._take_turn()
            stream, placed = Stream(self._client), None
            self._health.streams.add(stream)
            try:
                placed = await self._write(job, stream, tries)
                async with aclosing(self._answered(stream, job, tries)) as deltas:
                    async for delta in deltas:
                        tries.told = True
                        yield delta
                return
            except (BusyError, RefusedError, httpx.HTTPError, ParrotError) as error:
                if (ends_with := await self._judged(error, tries)) is not None:
                    raise ends_with from None
            finally:
                self._health.streams.discard(stream)
                await stream.aclose()
                if placed is not None:
                    placed.free()

    async def _judged(self, error: Exception, tries: _Tries) -> ParrotError | None:
        """What is to come of a request that failed: None, it is asked again; or what the job ends with.

        That is an `EndpointLostError` where the server is at fault, so that it runs elsewhere. Where it
        is in doubt that the server is well, it is asked: if it is dead, that is what is wrong.
        """
        again, doubtful = False, False
        ends_with: ParrotError
        match error:
            case BusyError():
                tries.refused += 1
                tries.waited += self._rate.refused(len(self._health.streams), error.seconds)
                again = tries.refused < MOST_TRIES and tries.waited <= LONGEST_WAIT
                ends_with = EndpointLostError(error.why)
            case RefusedError():
                again = not tries.told and tries.extras.give_up(error, tries.body)
                doubtful = error.error.code == "model_not_found"
                ends_with = error.error
            case ShutOutError():
                self._rate.rest(_SHUT_OUT_SECONDS)
                if isinstance(error, KeyRefusedError):
                    self._health.refuse(error.message)
                ends_with = EndpointLostError(error.message)
            case EndpointLostError():
                ends_with, doubtful = error, True
            case ParrotError():
                ends_with = error
            case _:
                tries.broken += 1
                again, doubtful = tries.broken < 2, True
                ends_with = lost(error, self._place)
        if doubtful:
            try:
                await self._health.doubt(ends_with.message)
                self._health.check_alive()
            except UnavailableError as worse:
                return worse
        return None if again and not tries.told else ends_with

    async def _take_turn(self) -> None:
        """Wait until the server may be asked again, as long as it lives."""
        self._health.check_alive()
        self.waiting += 1
        try:
            while (seconds := self._rate.check_wait(self._place)) > 0:
                await asyncio.sleep(min(seconds, _GLANCE_SECONDS))
                self._health.check_alive()
        finally:
            self.waiting -= 1

    async def _write(self, job: Job, stream: Stream, tries: _Tries) -> Placed | None:
        """The body of the next request, and the slot that it is for, if we choose that."""
        if isinstance(job.request, ChatRequest) and job.request.tools:
            await self._ask_for_tools(stream)
        known = self.known
        dialect = tries.extras.left_out_of(known.dialect)
        tries.body = body_of(job, known.model.name, dialect, self._salt(job.tenant))
        if self._slots is None or not dialect.picks_slot:
            return None
        placed = await self._slots.take(job.request, job.tenant)
        tries.body |= {"id_slot": placed.number, "cache_prompt": placed.reuse}
        return placed

    async def _ask_for_tools(self, stream: Stream) -> None:
        """Ask once for all who want to know; who is lost meanwhile does not wait for the answer."""
        if self.known.dialect.tools != "ask":
            return
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._learn_tools(), name="ask for tools")
            self._asking.add_done_callback(lambda task: task.cancelled() or task.exception())
        await stream.wait(partial(asyncio.shield, self._asking))

    async def _learn_tools(self) -> None:
        stream = Stream(self._client)  # as such it ends when the server is lost, or we are closed
        self._health.streams.add(stream)
        try:
            asked = partial(does_tools, self._client, self.known.model.name)
            tools = await stream.wait(asked)
        finally:
            self._health.streams.discard(stream)
        self._known = replace(self.known, dialect=replace(self.known.dialect, tools=tools))

    async def _answered(
        self, stream: Stream, job: Job, tries: _Tries
    ) -> AsyncGenerator[Delta, None]:
        dialect = self.known.dialect
        events = await stream.open(path_of(job.request), tries.body)
        answer, generated = Answer(self._place, tells_cached=dialect.tells_cached), 0
        read, most = reader_for(job.request, dialect), _most(job)
        async with aclosing(events):
            async for event in events:
                self._learn(tries)
                if (delta := answer.read(event)) is not None:
                    generated += len(delta.tokens) + delta.untold_tokens
                    if generated > most:
                        raise EngineError(f"{self._place} does not end at max_tokens")
                    yield read(delta)
        last = read(answer.end())
        self._rate.answered()
        self.counts.ended(last, generated + len(last.tokens) + last.untold_tokens)
        yield last

    def _learn(self, tries: _Tries) -> None:
        """It answers: what was left out for it to do so is to blame, and is not sent any more."""
        if tries.extras.given_up:
            dialect = tries.extras.learned(self.known.dialect, self._place)
            self._known = replace(self.known, dialect=dialect)

    def _salt(self, tenant: str) -> str | None:
        """A tenant's own, which tells nobody its name; who has none shares with all who have none."""
        if not tenant:
            return None
        return hmac.new(self._salt_key, tenant.encode(), hashlib.sha256).hexdigest()
