"""How an answer is streamed, of either model: events become chunks, and callbacks hear of each."""

from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing, closing
from typing import Any, Protocol, TypeVar

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.outputs import ChatGenerationChunk, GenerationChunk

from parrot_integrations.langchain.models.errors import model_errors

Chunk = TypeVar("Chunk", GenerationChunk, ChatGenerationChunk)
Made = TypeVar("Made", GenerationChunk, ChatGenerationChunk, covariant=True)
Event = Mapping[str, Any]


class Translator(Protocol[Made]):
    """Turns the events of one streamed answer into LangChain's chunks."""

    def content(self, chunk: Event) -> Made | None:
        """What an event adds to the answer; None where it adds nothing."""
        ...

    def last(self) -> Made:
        """The empty chunk that ends the stream, with all that is known about the answer."""
        ...


def chunks_of(
    events: Generator[Event, None, None],
    translator: Translator[Chunk],
    run_manager: CallbackManagerForLLMRun | None,
) -> Generator[Chunk, None, None]:
    """The chunks of a stream; the events are closed when nobody reads on.

    Raises:
        ModelError: the backend failed.
    """
    with model_errors(), closing(events):
        for event in events:
            if (chunk := translator.content(event)) is not None:
                if run_manager:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
    yield translator.last()


async def achunks_of(
    events: AsyncGenerator[Event, None],
    translator: Translator[Chunk],
    run_manager: AsyncCallbackManagerForLLMRun | None,
) -> AsyncGenerator[Chunk, None]:
    """As `chunks_of`."""
    with model_errors():
        async with aclosing(events):
            async for event in events:
                if (chunk := translator.content(event)) is not None:
                    if run_manager:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk
    yield translator.last()
