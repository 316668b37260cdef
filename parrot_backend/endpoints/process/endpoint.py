"""`ProcessEndpoint`: an engine in a process of its own, which shares no interpreter with the server."""

import itertools
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial

from parrot_backend.endpoints.base import HANG_SECONDS, Card, EndpointState, Job
from parrot_backend.endpoints.process.connection import Connection
from parrot_backend.endpoints.process.frames import Expect, Forget, FrameError, encoded
from parrot_backend.endpoints.process.recipe import Recipe
from parrot_backend.endpoints.process.supervisor import Supervisor
from parrot_backend.engines.base import Delta, EngineStats
from parrot_backend.engines.stages import Stage
from parrot_backend.wire.errors import UnavailableError
from parrot_backend.wire.text_protocol import LLMRequest

MAX_HINT_BYTES = 1 << 24
"""Of all hints that are kept for the next child; what is beyond it is no hint."""


class ProcessEndpoint:
    """Runs a `LocalEndpoint` in a child that it starts, watches over and replaces; see `Endpoint`.

    It is `starting` until `start`. When the child is lost, what it ran fails with an
    `EndpointLostError`, and so does what is asked for until the next is ready.

    Args:
        recipe: how the child makes its engine.
        hang_seconds: a child that says nothing for so long, or makes no step while it has something
            to run, is lost.
        loading: told how far a start is, now and then.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        hang_seconds: float = HANG_SECONDS,
        loading: Callable[[Stage], None] = lambda _: None,
    ) -> None:
        self._supervisor = Supervisor(partial(Connection.open, recipe, hang_seconds, loading))
        self._card: Card | None = None
        self._numbers = itertools.count()
        self._hints: dict[int, bytes] = {}
        self._hint_bytes = 0
        self.watch(self._greet)

    async def start(self) -> None:
        """Start the child, and wait until its engine is loaded.

        Raises:
            ParrotError: it can't be; the message is the child's own.
        """
        await self._supervisor.start()

    @property
    def card(self) -> Card:
        """What it can do; known from the first start on."""
        if self._card is None:
            raise UnavailableError("the engine is starting: try again later")
        return self._card

    @property
    def state(self) -> EndpointState:
        """Whether there is a child that takes jobs."""
        return self._supervisor.state

    @property
    def why(self) -> str | None:
        """Why there is none, where one was lost."""
        return self._supervisor.why

    @property
    def pid(self) -> int | None:
        """The child's, while there is one that is ready."""
        connection = self._supervisor.connection
        return None if connection is None else connection.pid

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` after every change of state; see `Endpoint.watch`."""
        self._supervisor.watch(changed)

    async def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        """Run a job; see `Endpoint.generate`."""
        async with aclosing(self._supervisor.ready().generate(job)) as deltas:
            async for delta in deltas:
                yield delta

    async def tokenize(self, request: LLMRequest) -> list[int]:
        """The tokens of a request's prompt; see `Endpoint.tokenize`."""
        return await self._supervisor.ready().tokenize(request)

    def expect(self, examples: Sequence[LLMRequest], tenant: str) -> Callable[[], None]:
        """Keep what the examples' prompts begin with; see `Endpoint.expect`.

        Each new child is told again.
        """
        number = next(self._numbers)
        try:
            hint = encoded(Expect(number, examples, tenant))
        except FrameError:  # what can't be sent is no hint
            return lambda: None
        if self._hint_bytes + len(hint) > MAX_HINT_BYTES:
            return lambda: None
        self._hints[number] = hint
        self._hint_bytes += len(hint)
        self._send(hint)
        return partial(self._forget, number)

    def stats(self) -> EngineStats:
        """The load and the counts, as the child last told; they begin anew with each child."""
        connection = self._supervisor.connection
        return EngineStats() if connection is None else connection.stats

    def drain(self) -> None:
        """Take no more jobs; see `Endpoint.drain`."""
        self._supervisor.drain()

    async def aclose(self) -> None:
        """End the child; see `Endpoint.aclose`."""
        await self._supervisor.aclose()

    def _greet(self) -> None:
        """A child that is new knows none of the hints."""
        connection = self._supervisor.connection
        if self.state == "ready" and connection is not None:
            self._card = connection.card
            for hint in self._hints.values():
                self._send(hint)

    def _forget(self, number: int) -> None:
        if (hint := self._hints.pop(number, None)) is not None:
            self._hint_bytes -= len(hint)
            self._send(encoded(Forget(number)))

    def _send(self, frame: bytes) -> None:
        connection = self._supervisor.connection
        if connection is not None:
            connection.send(frame)
