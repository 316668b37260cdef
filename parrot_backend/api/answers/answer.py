"""Calls as an answer to their request, whole or streamed; a client that leaves is noticed at once."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Iterator
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from parrot_backend.api.answers import completion as chat
from parrot_backend.api.answers.choices import read
from parrot_backend.api.answers.json_pieces import json_pieces
from parrot_backend.api.errors import error_body, unexpected
from parrot_backend.api.pieces import Pieces
from parrot_backend.api.requests.bodies import let_go_of_body
from parrot_backend.api.state import core_of
from parrot_backend.engines.base import Delta
from parrot_backend.serving.call import Call
from parrot_backend.wire.errors import ParrotError
from parrot_backend.wire.protocol import CALL_HEADER, CLAIMED_HEADER, ChatRequest
from parrot_backend.wire.text_protocol import CompletionRequest

T = TypeVar("T")
Deltas = AsyncGenerator[tuple[int, Delta], None]

# Characters of an answer that is made before it is sent, so that its length is told.
_SHORT = 2**20


class _Told(StreamingResponse):
    """Ends what it tells when its client leaves, also one that doesn't read: Starlette leaves that to
    the garbage collector."""

    def __init__(
        self, pieces: AsyncGenerator[str, None], media_type: str, headers: dict[str, str]
    ) -> None:
        super().__init__(pieces, media_type=media_type, headers=headers)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._pieces.aclose()


class Shape(Protocol):
    """How calls are told: see `api.completion` for chats, `api.text_completion` for raw text."""

    def completion(self, calls: list[Call]) -> dict[str, Any]:
        """The whole answer; its `choices` are made as they are taken."""
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
    let_go_of_body(http)  # the calls have it now
    fingerprint = {"system_fingerprint": core_of(http).endpoint.card.model.fingerprint}
    deltas = read(calls)
    if not request.stream:
        await until_disconnect(http, _drain(deltas))
        content = shape.completion(calls) | fingerprint
        content["choices"] = _released(calls, content["choices"])
        pieces: Pieces = http.app.state.pieces
        return await _whole(pieces.each(json_pieces(content)), headers)
    first = await until_disconnect(http, anext(deltas))
    include_usage = request.stream_options is not None and request.stream_options.include_usage
    events = _events(shape, calls, first, deltas, fingerprint, include_usage=include_usage)
    return _Told(events, "text/event-stream", headers)


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


async def _whole(pieces: AsyncGenerator[str, None], headers: dict[str, str]) -> Response:
    """JSON as one answer: with its length where it is short, and else sent as it is made."""
    begun, size = [], 0
    async for piece in pieces:
        begun.append(piece)
        size += len(piece)
        if size > _SHORT:
            return _Told(_continued("".join(begun), pieces), "application/json", headers)
    return Response("".join(begun), media_type="application/json", headers=headers)


async def _continued(begun: str, rest: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    async with aclosing(rest):
        yield begun
        async for piece in rest:
            yield piece


def _released(calls: list[Call], choices: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The choices of ended calls, each of which is released when its choice has been told."""
    try:
        for call, choice in zip(calls, choices, strict=True):
            yield choice
            call.release()
    finally:
        _release(calls)


async def _events(
    shape: Shape,
    calls: list[Call],
    first: tuple[int, Delta],
    deltas: Deltas,
    told_by_all: dict[str, Any],
    *,
    include_usage: bool,
) -> AsyncGenerator[str, None]:
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
