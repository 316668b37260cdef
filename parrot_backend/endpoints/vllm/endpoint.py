"""`VllmEndpoint`: `vllm serve` as a child of ours."""

import itertools
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial

from parrot_backend.endpoints.base import HANG_SECONDS, Card, Endpoint, EndpointState, Job
from parrot_backend.endpoints.process.supervisor import Supervisor
from parrot_backend.endpoints.vllm.server import VllmServer
from parrot_backend.endpoints.vllm.starting import Launch, Started
from parrot_backend.engines.base import Delta, EngineStats
from parrot_backend.wire.errors import UnavailableError
from parrot_backend.wire.text_protocol import LLMRequest

MAX_HINTS = 4096


class VllmEndpoint:
    """Runs chats on a vLLM that it starts, watches over and replaces; see `Endpoint`.

    When it is lost, what it ran fails with an `EndpointLostError`, and so does what is asked for until
    the next is ready. It is `dead` too while it lives and answers nobody.

    Args:
        launch: what is started.
        upstream_of: the endpoint that asks a vLLM which has been started.
        hang_seconds: one that answers nobody for so long is killed.
    """

    def __init__(
        self,
        launch: Launch,
        upstream_of: Callable[[Started], Endpoint],
        *,
        hang_seconds: float = HANG_SECONDS,
    ) -> None:
        self._supervisor = Supervisor(
            partial(VllmServer.open, launch, upstream_of, hang_seconds), launch.label
        )
        self._card: Card | None = None
        self._server: VllmServer | None = None
        self._watchers: list[Callable[[], None]] = []
        self._numbers = itertools.count()
        self._hints: dict[int, _Hint] = {}
        self._supervisor.watch(self._supervised)

    async def start(self) -> None:
        """Start vLLM, and wait until it is ready.

        Raises:
            ParrotError: it can't be, and why.
            OSError: its command can't be run.
        """
        await self._supervisor.start()

    @property
    def card(self) -> Card:
        """What it can do; known from the first start on."""
        if (server := self._supervisor.connection) is not None:
            self._card = server.upstream.card  # its slots change
        if self._card is None:
            raise UnavailableError("vLLM is starting: try again later")
        return self._card

    @property
    def state(self) -> EndpointState:
        """Whether there is one that takes jobs."""
        server = self._supervisor.connection
        if self._supervisor.state != "ready" or server is None:
            return self._supervisor.state
        state = server.upstream.state
        return "dead" if state == "failed" else state

    @property
    def why(self) -> str | None:
        """Why there is none, where one was lost or answers nobody."""
        server = self._supervisor.connection
        return self._supervisor.why if server is None else server.upstream.why

    @property
    def pid(self) -> int | None:
        """Its first process's, while there is one that is ready."""
        server = self._supervisor.connection
        return None if server is None else server.process.process.pid

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` after every change of state; see `Endpoint.watch`."""
        self._watchers.append(changed)

    async def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        """Run a job; see `Endpoint.generate`."""
        async with aclosing(self._supervisor.ready().generate(job)) as deltas:
            async for delta in deltas:
                yield delta

    async def tokenize(self, request: LLMRequest) -> list[int]:
        """The tokens of a request's prompt; see `Endpoint.tokenize`."""
        return await self._supervisor.ready().tokenize(request)

    def expect(self, examples: Sequence[LLMRequest], tenant: str) -> Callable[[], None]:
        """Compute what the examples' prompts begin with; see `Endpoint.expect`.

        Each new vLLM is told again.
        """
        if len(self._hints) >= MAX_HINTS:
            return lambda: None
        number = next(self._numbers)
        hint = self._hints[number] = _Hint(examples, tenant)
        if (server := self._supervisor.connection) is not None:
            hint.tell(server.upstream)
        return partial(self._forget, number)

    def stats(self) -> EngineStats:
        """The load and the counts; they begin anew with each vLLM."""
        server = self._supervisor.connection
        return EngineStats() if server is None else server.upstream.stats()

    def drain(self) -> None:
        """Take no more jobs; see `Endpoint.drain`."""
        if (server := self._supervisor.connection) is not None:
            server.upstream.drain()
        self._supervisor.drain()

    async def aclose(self) -> None:
        """End vLLM; see `Endpoint.aclose`."""
        server = self._supervisor.connection
        await self._supervisor.aclose()
        if server is not None:
            await server.closed()

    def _supervised(self) -> None:
        server = self._supervisor.connection
        if server is not None and server is not self._server:
            self._server, self._card = server, server.upstream.card
            server.upstream.watch(self._tell)
            for hint in self._hints.values():
                hint.tell(server.upstream)
        self._tell()

    def _tell(self) -> None:
        for changed in self._watchers:
            changed()

    def _forget(self, number: int) -> None:
        if (hint := self._hints.pop(number, None)) is not None:
            hint.forget()


class _Hint:
    """What will be needed, and how the vLLM that was told last is told that it is not."""

    def __init__(self, examples: Sequence[LLMRequest], tenant: str) -> None:
        self._examples = examples
        self._tenant = tenant
        self.forget: Callable[[], None] = lambda: None

    def tell(self, upstream: Endpoint) -> None:
        self.forget = upstream.expect(self._examples, self._tenant)
