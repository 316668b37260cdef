"""Calls as an answer to their request, whole or streamed; a client that leaves is noticed at once."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from typing import Any, Protocol, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.requests import ClientDisconnect

from parrot_backend.api import completion as chat
from parrot_backend.api.choices import read
from parrot_backend.api.errors import error_body, unexpected
from parrot_backend.api.state import core_of
from parrot_backend.engines.base import Delta
from parrot_backend.serving.call import Call
from parrot_backend.wire.errors import ParrotError
from parrot_backend.wire.protocol import CALL_HEADER, CLAIMED_HEADER, ChatRequest
from parrot_backend.wire.text_protocol import CompletionRequest

T = TypeVar("T")
Deltas = AsyncGenerator[tuple[int, Delta], None]


class Shape(Protocol):
    """How calls are told: see `api.completion` for chats, `api.text_completion` for raw text."""

    def completion(self, calls: list[Call]) -> dict[str, Any]:
        """The whole answer."""
        ...

    def chunk(self, calls: list[Call], index: int, step: Delta, *, first: bool) -> dict[str, Any]:
        """One step of one choice."""
        ...

    def usage_chunk(self, calls: list[Call]) -> dict[str, Any]:
        """The end of a stream."""
        ...


async def answer(
    http: Request, calls: list[Call], request: ChatRequest | CompletionRequest, shape: Shape = chat
) -> Response:
    """The response to a request whose choices `calls` fulfil.

    A streamed answer starts with the first delta, so that an error before it still has its status.

    Raises:
        ParrotError: a call failed before the first token (streamed) or before its end.
    """
    headers = {
        CALL_HEADER: ",".join(call.id for call in calls),
        CLAIMED_HEADER: str(all(call.claimed for call in calls)).lower(),
    }
    fingerprint = {"system_fingerprint": core_of(http).endpoint.card.model.fingerprint}
    deltas = read(calls)
    if not request.stream:
        await until_disconnect(http, _drain(deltas))
        response = JSONResponse(shape.completion(calls) | fingerprint, headers=headers)
        _release(calls)
        return response
    first = await until_disconnect(http, anext(deltas))
    include_usage = request.stream_options is not None and request.stream_options.include_usage
    events = _events(shape, calls, first, deltas, fingerprint, include_usage=include_usage)
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


async def until_disconnect(http: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client leaves.

    Raises:
        ClientDisconnect: it left.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(_disconnected(http))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        gone.cancel()
        task.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(http: Request) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


async def _drain(deltas: Deltas) -> None:
    async for _ in deltas:
        pass


async def _events(
    shape: Shape,
    calls: list[Call],
    first: tuple[int, Delta],
    deltas: Deltas,
    told_by_all: dict[str, Any],
    *,
    include_usage: bool,
) -> AsyncIterator[str]:
    begun = {first[0]}
    try:
        yield _event(shape.chunk(calls, *first, first=True) | told_by_all)
        async for index, delta in deltas:
            yield _event(shape.chunk(calls, index, delta, first=index not in begun) | told_by_all)
            begun.add(index)
        if include_usage:
            yield _event(shape.usage_chunk(calls) | told_by_all)
    except ParrotError as error:
        yield _event(error_body(error))
    except Exception as error:
        yield _event(error_body(unexpected(f"the stream of call '{calls[0].id}'", error)))
    finally:
        await deltas.aclose()
        _release(calls)
    yield "data: [DONE]\n\n"


def _release(calls: list[Call]) -> None:
    """What was told to whom it was for need not be kept."""
    for call in calls:
        call.release()


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"
