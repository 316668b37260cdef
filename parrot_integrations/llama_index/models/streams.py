"""How an answer is streamed: chunks become responses, each with all that came so far."""

from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing, closing
from typing import Any

from llama_index.core.base.llms.types import (
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    LogProb,
)

from parrot_integrations.client.chat.calls import StreamedCalls
from parrot_integrations.llama_index.models.results import assistant, token_logprobs, told

Chunk = Mapping[str, Any]


class ChunkTranslator:
    """Turns the chunks of one streamed answer into responses; the last one has the token counts."""

    def __init__(self) -> None:
        self._text = ""
        self._calls = StreamedCalls()
        self._logprobs: list[list[LogProb]] = []
        self._finish_reason: str | None = None

    def response(self, chunk: Chunk) -> ChatResponse:
        """The response after a chunk."""
        choice = chunk["choices"][0] if chunk["choices"] else {}
        added = choice.get("delta") or {}
        delta = added.get("content") or ""
        self._text += delta
        self._calls.add(added.get("tool_calls") or ())
        self._logprobs += token_logprobs(choice.get("logprobs"))
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        return ChatResponse(
            message=assistant(self._text, list(self._calls)),
            delta=delta,
            raw=dict(chunk),
            logprobs=list(self._logprobs) or None,
            additional_kwargs=told(chunk, self._finish_reason),
        )


def responses(chunks: Generator[Chunk, None, None]) -> ChatResponseGen:
    """The responses of a stream; its connection is closed when nobody reads on.

    Raises:
        ParrotError: the backend failed.
    """
    translator = ChunkTranslator()
    with closing(chunks):
        for chunk in chunks:
            yield translator.response(chunk)


async def aresponses(chunks: AsyncGenerator[Chunk, None]) -> ChatResponseAsyncGen:
    """As `responses`."""
    translator = ChunkTranslator()
    async with aclosing(chunks):
        async for chunk in chunks:
            yield translator.response(chunk)
