"""What a case is, and how what it gives is taken."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, field
from random import Random
from typing import Any
from zlib import crc32

from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse
from llama_index.core.chat_engine.types import StreamingAgentChatResponse
from llama_index.core.embeddings import BaseEmbedding
from pydantic import BaseModel

from parrot_integrations.llama_index import Parrot

MODES = ("sync", "async", "loop")


class Fact(BaseModel):
    """A fact of the text."""

    title: str
    score: int


class Hashing(BaseEmbedding):
    """No two texts are equally near, as a rule."""

    def _get_text_embedding(self, text: str) -> list[float]:
        rng = Random(crc32(text.encode()))
        return [rng.random() for _ in range(4)]

    _get_query_embedding = _get_text_embedding

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


@dataclass
class World:
    """What a case is drawn from, and where user code notes what it was asked."""

    rng: Random
    llm: Parrot
    calls: list[str] = field(default_factory=list)
    embed_model: BaseEmbedding = field(default_factory=Hashing)

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability


Ask = Callable[[Any], Any]


@dataclass
class Case:
    """`subject` is what may be compiled, and `ask` and `aask` use it or what it was compiled to.

    `concurrent`: the framework itself runs parts of it side by side. `whole`: how an engine cuts its
    text is a matter of time.
    """

    subject: Any
    ask: Ask
    aask: Ask | None = None
    mode: str = "sync"
    concurrent: bool = False
    whole: bool = False

    def run(self, subject: Any) -> Any:
        if self.mode == "sync":
            return self._told(consumed(self.ask(subject)))
        return self._told(asyncio.run(self._asked(subject)))

    def _told(self, result: Any) -> Any:
        if self.whole and isinstance(result, list) and result and isinstance(result[0], list):
            texts = [chunk for chunk in result[0] if isinstance(chunk, str)]
            return ["".join(texts), *result[1:]] if len(texts) == len(result[0]) else result
        if self.whole and isinstance(result, list) and all(isinstance(c, str) for c in result):
            return "".join(result)
        return result

    async def _asked(self, subject: Any) -> Any:
        if self.mode == "loop" or self.aask is None:  # as in a notebook
            return consumed(self.ask(subject))
        return await aconsumed(await self.aask(subject))


def consumed(result: Any) -> Any:
    """The result, and what it streams."""
    if isinstance(result, Generator):
        return [*result]
    if isinstance(result, StreamingResponse):
        return [[*result.response_gen], result]
    if isinstance(result, StreamingAgentChatResponse):
        chunks = [*result.response_gen]
        if (thread := getattr(result, "write_response_to_history_thread", None)) is not None:
            thread.join()
        return [chunks, str(result), result.sources, result.source_nodes]
    return result


async def aconsumed(result: Any) -> Any:
    if isinstance(result, AsyncGenerator):
        return [chunk async for chunk in result]
    if isinstance(result, AsyncStreamingResponse):
        return [[chunk async for chunk in result.async_response_gen()], result]
    if isinstance(result, StreamingAgentChatResponse):
        chunks = [chunk async for chunk in result.async_response_gen()]
        if (task := getattr(result, "awrite_response_to_history_task", None)) is not None:
            await task
        return [chunks, str(result), result.sources, result.source_nodes]
    return consumed(result)
