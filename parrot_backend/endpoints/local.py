"""`LocalEndpoint`: an engine in this process, with templates, grammars and tool calls around it."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import takewhile

from parrot_backend.endpoints.base import Card, EndpointState, Job
from parrot_backend.endpoints.generation import sampling_of
from parrot_backend.endpoints.lengths import check_length
from parrot_backend.endpoints.tool_calls import reader_of
from parrot_backend.engines.base import Delta, Engine, EngineStats, GenerationRequest
from parrot_backend.wire.errors import ParrotError, UnavailableError
from parrot_backend.wire.parameters import OPENAI_DEFAULTS
from parrot_backend.wire.text_protocol import LLMRequest, PromptRequest


class LocalEndpoint:
    """Owns `engine`; see `Endpoint`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._state: EndpointState = "ready"
        self._watchers: list[Callable[[], None]] = []
        self._expecting: set[asyncio.Task[None]] = set()
        # One at a time, so that no chat waits behind hints; of what is forgotten before its turn
        # nothing is encoded.
        self._encoding_hints = ThreadPoolExecutor(1, "encode hints")

    async def start(self) -> None:
        """It is ready as it is."""

    @property
    def card(self) -> Card:
        """What the engine can do."""
        kv_tokens = self.engine.stats().kv_capacity_tokens
        return Card(self.engine.model, self.engine.slots, kv_tokens=kv_tokens or None)

    @property
    def state(self) -> EndpointState:
        """Ready until it is drained or closed, or the engine has ended by itself."""
        return "dead" if self.engine.dead is not None else self._state

    @property
    def why(self) -> str | None:
        """How the engine has ended, where it has by itself."""
        return self.engine.dead

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` after every change of state; see `Endpoint.watch`."""
        self._watchers.append(changed)

    async def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        """Run a job; see `Endpoint.generate`."""
        if self._state != "ready":
            raise UnavailableError("the server is shutting down")
        prompt = await self._prompt(job.request, fitting=True)
        generation = GenerationRequest(
            prompt=prompt,
            sampling=sampling_of(
                job.request, self.engine.model.generation_config or OPENAI_DEFAULTS
            ),
            priority=job.priority,
            tenant=job.tenant,
            draft=job.draft,
            kv_share=job.kv_share,
            interactive=job.interactive,
        )
        read, deltas = reader_of(job.request), self.engine.generate(generation)
        try:
            async for delta in deltas:
                yield replace(read(delta), prompt_tokens=len(prompt))
        finally:
            await deltas.aclose()

    async def tokenize(self, request: LLMRequest) -> list[int]:
        """The tokens of a request's prompt; see `Endpoint.tokenize`."""
        return await self._prompt(request, fitting=False)

    def expect(self, examples: Sequence[LLMRequest], tenant: str) -> Callable[[], None]:
        """Keep what the examples' prompts begin with; see `Endpoint.expect`."""
        kept = contextlib.ExitStack()
        task = asyncio.create_task(self._expect(examples, tenant, kept), name="expect")
        self._expecting.add(task)
        task.add_done_callback(self._expecting.discard)

        def forget() -> None:
            task.cancel()
            kept.close()

        return forget

    def stats(self) -> EngineStats:
        """The engine's load and counts."""
        return self.engine.stats()

    def drain(self) -> None:
        """Take no more jobs; see `Endpoint.drain`."""
        self._become("draining")

    async def aclose(self) -> None:
        """Stop the engine."""
        self._become("dead")
        for task in self._expecting:
            task.cancel()
        self._encoding_hints.shutdown(wait=False, cancel_futures=True)
        await self.engine.aclose()

    def _become(self, state: EndpointState) -> None:
        self._state = state
        for changed in self._watchers:
            changed()

    async def _expect(
        self, examples: Sequence[LLMRequest], tenant: str, kept: contextlib.ExitStack
    ) -> None:
        with contextlib.suppress(ParrotError):  # who runs such a request is told what is wrong
            prompts = [
                await self._prompt(example, fitting=True, executor=self._encoding_hints)
                for example in examples
            ]
            columns = zip(*prompts, strict=False)
            prefix = [column[0] for column in takewhile(lambda c: len(set(c)) == 1, columns)]
            if prefix:
                kept.callback(self.engine.expect(prefix, tenant))

    async def _prompt(
        self, request: LLMRequest, *, fitting: bool, executor: Executor | None = None
    ) -> list[int]:
        check_length(request, self.engine.model)
        encode = partial(self._encode, request, fitting=fitting)
        return await asyncio.get_running_loop().run_in_executor(executor, encode)

    def _encode(self, request: LLMRequest, *, fitting: bool) -> list[int]:
        if not isinstance(request, PromptRequest):
            return self.engine.encode(request.messages, request.tools or (), fitting=fitting)
        if isinstance(request.prompt, str):
            return self.engine.tokenize(request.prompt, fitting=fitting)
        return request.prompt
