"""What stands for vLLM and for the upstream on it."""

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from parrot_backend.endpoints.base import Card, EndpointState, Job
from parrot_backend.endpoints.vllm.endpoint import VllmEndpoint
from parrot_backend.endpoints.vllm.starting import Launch, Started
from parrot_backend.engines.base import Delta, EngineStats, ModelCard
from parrot_backend.wire.errors import EndpointLostError
from parrot_backend.wire.text_protocol import LLMRequest


def command(folder: Path) -> str:
    """The fake as a command of its own."""
    script = folder / "vllm"
    if not script.exists():
        fake = Path(__file__).with_name("fake.py")
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {fake} "$@"\n')
        script.chmod(0o755)
    return str(script)


class Upstream:
    """An upstream that says what it was told to."""

    def __init__(self, started: Started) -> None:
        self.started = started
        self.state: EndpointState = "starting"
        self.why: str | None = None
        self.hints: list[str] = []
        self.closed = False
        self._changed: list[Callable[[], None]] = []
        self.card = Card(ModelCard(started.served_name, 100), 4)

    async def start(self) -> None:
        self.state = "ready"

    def become(self, state: EndpointState) -> None:
        self.state = state
        for changed in self._changed:
            changed()

    def watch(self, changed: Callable[[], None]) -> None:
        self._changed.append(changed)

    async def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        yield Delta("a", (1,), 0)
        await self.started.process.exited()
        raise EndpointLostError("the connection was reset")

    async def tokenize(self, request: LLMRequest) -> list[int]:
        return [1]

    def expect(self, examples: Sequence[LLMRequest], tenant: str) -> Callable[[], None]:
        self.hints.append(tenant)
        return lambda: self.hints.remove(tenant)

    def stats(self) -> EngineStats:
        return EngineStats(running=1)

    def drain(self) -> None:
        self.become("draining")

    async def aclose(self) -> None:
        self.closed = True


@asynccontextmanager
async def running(
    folder: Path, *arguments: str, hang_seconds: float = 60, start_seconds: float = 60
) -> AsyncIterator[tuple[VllmEndpoint, list[Upstream]]]:
    """An endpoint on the fake, and the upstreams that were made for it."""
    upstreams: list[Upstream] = []

    def upstream_of(started: Started) -> Upstream:
        upstreams.append(Upstream(started))
        return upstreams[-1]

    launch = Launch(command(folder), "org/model", arguments, start_seconds)
    endpoint = VllmEndpoint(launch, upstream_of, hang_seconds=hang_seconds)
    try:
        await endpoint.start()
        yield endpoint, upstreams
    finally:
        await endpoint.aclose()
