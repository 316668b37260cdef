"""Streams that a run gives: it goes on while they are read, and is over with them."""

import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse
from llama_index.core.chat_engine.types import StreamingAgentChatResponse

from parrot_integrations.llama_index.compiling.run import ShadowedRun

_END: Any = object()


@contextmanager
def ending(run: ShadowedRun) -> Iterator[Callable[[Any], Any]]:
    """A run, which ends with this, or with the stream that is kept inside."""
    run.__enter__()
    kept: list[Any] = []

    def keep(result: Any) -> Any:
        result, stream = _kept(result, run)
        if stream is not None:
            kept.append(True)
            # Who drops it unread, or in the middle, ends the run too.
            weakref.finalize(stream, run.__exit__).atexit = False
        return result

    try:
        yield keep
    finally:
        if not kept:
            run.__exit__()


def _kept(result: Any, run: ShadowedRun) -> tuple[Any, Any]:
    """A result whose stream is drawn in the run, and the stream; None where it has none."""
    if isinstance(result, Generator):
        stream: Any = _drawn(result, run)
        return stream, stream
    if isinstance(result, AsyncGenerator):
        stream = _adrawn(result, run)
        return stream, stream
    if isinstance(result, StreamingResponse) and isinstance(result.response_gen, Generator):
        result.response_gen = stream = _drawn(result.response_gen, run)
        return result, stream
    if isinstance(result, AsyncStreamingResponse):
        tokens: Any = result.response_gen
        result.response_gen = stream = _adrawn(tokens, run)
        return result, stream
    # A chat engine's stream is read by a thread by now, and a workflow's handler is of one that runs.
    goes_on = isinstance(result, StreamingAgentChatResponse | Awaitable)
    return result, result if goes_on else None


def _drawn(stream: Generator[Any, None, None], run: ShadowedRun) -> Generator[Any, None, None]:
    try:
        while True:
            with run.active():
                item = next(stream, _END)
            if item is _END:
                return
            yield item
    finally:
        stream.close()
        run.__exit__()


async def _adrawn(stream: AsyncGenerator[Any, None], run: ShadowedRun) -> AsyncGenerator[Any, None]:
    try:
        while True:
            with run.active():
                item = await anext(stream, _END)
            if item is _END:
                return
            yield item
    finally:
        await stream.aclose()
        run.__exit__()
