"""Endpoints with real children, and what is asked of them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from parrot_backend.endpoints.base import Endpoint, EndpointState, Job
from parrot_backend.endpoints.process.endpoint import ProcessEndpoint
from parrot_backend.engines.base import Delta
from parrot_backend.wire.protocol import ChatRequest
from tests.endpoints.process.engines import recipe

PATIENCE = 120.0


@asynccontextmanager
async def running(
    factory: str = "troubled", *, hang_seconds: float = 60.0, **options: object
) -> AsyncIterator[ProcessEndpoint]:
    """A started endpoint, closed at the end."""
    endpoint = ProcessEndpoint(recipe(factory, **options), hang_seconds=hang_seconds)
    try:
        await endpoint.start()
        yield endpoint
    finally:
        await endpoint.aclose()
    assert endpoint.state in ("dead", "failed")
    assert endpoint.pid is None


def job(content: str, **parameters: object) -> Job:
    message = {"role": "user", "content": content}
    return Job(ChatRequest.model_validate({"messages": [message], **parameters}))


async def deltas_of(endpoint: Endpoint, asked: Job) -> list[Delta]:
    async with aclosing(endpoint.generate(asked)) as deltas:
        return [delta async for delta in deltas]


async def answer_of(endpoint: Endpoint, content: str) -> str:
    return "".join(delta.text for delta in await deltas_of(endpoint, job(content)))


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for `condition()` to become true."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - another process makes it true
            await asyncio.sleep(0.01)


def states_of(endpoint: Endpoint) -> list[EndpointState]:
    """Filled with each state that the endpoint has from now on."""
    states: list[EndpointState] = []
    endpoint.watch(lambda: states.append(endpoint.state))
    return states
