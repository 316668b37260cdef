"""A call as OpenAI's chat completion, whole or streamed; a client that leaves is noticed at once."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.requests import ClientDisconnect

from parrot_backend.api.errors import error_body
from parrot_backend.engines.base import Delta
from parrot_backend.errors import ParrotError
from parrot_backend.protocol import CALL_HEADER, CLAIMED_HEADER, ChatRequest
from parrot_backend.serving.call import Call

T = TypeVar("T")


async def answer(http: Request, call: Call, request: ChatRequest) -> Response:
    """The response to a chat request that `call` fulfils.

    A streamed answer starts with the first delta, so that an error before it still has its status.

    Raises:
        ParrotError: the call failed before its first token (streamed) or before its end.
    """
    headers = {CALL_HEADER: call.id, CLAIMED_HEADER: str(call.claimed).lower()}
    deltas = call.read()
    if not request.stream:
        await until_disconnect(http, _drain(deltas))
        return JSONResponse(completion(call), headers=headers)
    first = await until_disconnect(http, anext(deltas))
    usage = request.stream_options is not None and request.stream_options.include_usage
    events = _events(call, first, deltas, include_usage=usage)
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


async def _drain(deltas: AsyncIterator[Delta]) -> None:
    async for _ in deltas:
        pass


async def _events(
    call: Call, first: Delta, deltas: AsyncGenerator[Delta, None], *, include_usage: bool
) -> AsyncIterator[str]:
    try:
        yield _event(_chunk(call, {"role": "assistant", "content": first.text}, first))
        async for delta in deltas:
            yield _event(_chunk(call, {"content": delta.text} if delta.text else {}, delta))
        if include_usage:
            yield _event({**_chunk_base(call), "choices": [], "usage": usage(call)})
    except ParrotError as error:
        yield _event(error_body(error))
    finally:
        await deltas.aclose()
    yield "data: [DONE]\n\n"


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


def _chunk_base(call: Call) -> dict[str, Any]:
    model = call.request.model if call.request is not None else None
    return {
        "id": call.id,
        "object": "chat.completion.chunk",
        "created": int(call.created),
        "model": model,
    }


def _chunk(call: Call, delta: dict[str, Any], step: Delta) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": step.finish_reason}
    return {**_chunk_base(call), "choices": [choice]}


def completion(call: Call) -> dict[str, Any]:
    """An ended call as a `chat.completion` object."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": call.text, "refusal": None},
        "logprobs": None,
        "finish_reason": call.finish_reason,
    }
    return {
        **_chunk_base(call),
        "object": "chat.completion",
        "choices": [choice],
        "usage": usage(call),
    }


def usage(call: Call) -> dict[str, Any]:
    """Tokens of the call; `cached_tokens` of the prompt were not computed again."""
    return {
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": call.completion_tokens,
        "total_tokens": call.prompt_tokens + call.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": call.cached_tokens},
    }
