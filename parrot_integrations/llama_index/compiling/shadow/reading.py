"""Results read to their ends: the last call of a streamed run is made when its stream is read."""

from collections.abc import AsyncGenerator, Generator
from typing import Any

from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse


def used_up(result: Any) -> Any:
    """A result, its stream read to its end."""
    stream = _stream(result)
    if isinstance(stream, Generator):
        for _ in stream:
            pass
    return result


async def aused_up(result: Any) -> Any:
    """As `used_up`, where the stream may be an asynchronous one."""
    stream = _stream(result)
    if isinstance(stream, AsyncGenerator):
        async for _ in stream:
            pass
    return used_up(result)


def _stream(result: Any) -> Any:
    streams = isinstance(result, StreamingResponse | AsyncStreamingResponse)
    return result.response_gen if streams else result
