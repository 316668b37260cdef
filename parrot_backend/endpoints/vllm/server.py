"""A vLLM that is started, as its supervisor has it: the process, and the upstream that it serves."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from parrot_backend.endpoints.base import Endpoint, Job
from parrot_backend.endpoints.vllm.process import VllmProcess
from parrot_backend.endpoints.vllm.starting import Launch, Started, started
from parrot_backend.engines.base import Delta
from parrot_backend.wire.errors import ParrotError, UnavailableError
from parrot_backend.wire.text_protocol import LLMRequest

_LAST_WORDS_SECONDS = 1.0
_LOOKS = 20


class VllmServer:
    """Make one with `open`, and await `ended` for all of its life; see `supervisor.Child`.

    Args:
        process: ours from now on.
        upstream: made for it, and started; ours too.
        hang_seconds: how long it may answer nobody.
    """

    def __init__(self, process: VllmProcess, upstream: Endpoint, hang_seconds: float) -> None:
        self.upstream = upstream
        self.process = process
        self._hang_seconds = hang_seconds
        self._failure: Callable[[], ParrotError] | None = None
        self._over = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, launch: Launch, upstream_of: Callable[[Started], Endpoint], hang_seconds: float
    ) -> "VllmServer":
        """Start vLLM and wait until it is ready.

        Raises:
            ParrotError: it can't be, and why.
            OSError: its command can't be run.
        """
        begun = await started(launch)
        try:
            upstream = upstream_of(begun)
            await upstream.start()
        except BaseException:
            await begun.process.killed()
            raise
        return cls(begun.process, upstream, hang_seconds)

    async def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        """Run a job; see `Endpoint.generate`."""
        try:
            async with aclosing(self.upstream.generate(job)) as deltas:
                async for delta in deltas:
                    yield delta
        except UnavailableError as error:
            raise await self._why(error) from None

    async def tokenize(self, request: LLMRequest) -> list[int]:
        """The tokens of a request's prompt; see `Endpoint.tokenize`."""
        try:
            return await self.upstream.tokenize(request)
        except UnavailableError as error:
            raise await self._why(error) from None

    def fail(self, failure: Callable[[], ParrotError]) -> None:
        """All that runs ends with its connections; what is told of it is this."""
        self._failure = self._failure or failure
        self._over.set()
        self._closing = self._closing or asyncio.create_task(self.upstream.aclose(), name="close")

    def terminate(self) -> None:
        """Have it end in its own way."""
        self.process.terminate()

    async def ended(self) -> str:
        """When it has ended, or is killed, since it hangs or since we are cancelled; says how."""
        exiting = asyncio.create_task(self.process.exited(), name="exit")
        hanging = asyncio.create_task(self._hang(), name="hang")
        try:
            await asyncio.wait((exiting, hanging), return_when=asyncio.FIRST_COMPLETED)
            wrong = "" if exiting.done() else hanging.result()
        finally:
            exiting.cancel()
            hanging.cancel()
            how = await self.process.killed()
        return wrong or how

    async def closed(self) -> None:
        """When its connections are closed, after `fail`."""
        if self._closing is not None:
            await asyncio.gather(self._closing, return_exceptions=True)

    async def _hang(self) -> str:
        """When it hangs; says how. What the upstream calls dead may come back."""
        silent, turn = 0.0, self._hang_seconds / _LOOKS
        while silent < self._hang_seconds:
            await asyncio.sleep(turn)
            silent = 0.0 if self.upstream.state in ("ready", "draining") else silent + turn
        return f"vLLM hung: it did not answer for {self._hang_seconds:g} s and was killed"

    async def _why(self, error: ParrotError) -> ParrotError:
        """Connections end shortly before the process is known to have; then there is no place here."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), _LAST_WORDS_SECONDS)
        return error if self._failure is None else self._failure()
