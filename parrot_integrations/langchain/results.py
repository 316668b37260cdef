"""Answers in OpenAI's wire form as LangChain's results."""

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

PROVIDER = "parrot"


def chat_result(response: Mapping[str, Any]) -> ChatResult:
    """The result of a whole chat answer."""
    generations = [
        ChatGeneration(
            message=AIMessage(
                content=choice["message"]["content"] or "",
                usage_metadata=usage_metadata(response.get("usage")),
                response_metadata=_response_metadata(response),
            ),
            generation_info={"finish_reason": choice["finish_reason"]},
        )
        for choice in response["choices"]
    ]
    return ChatResult(generations=generations)


class ChunkTranslator:
    """Turns the chunks of one streamed answer into LangChain's.

    Text goes out as it comes. The reason why it ended, the model's name and the usage are kept for
    one last chunk: merged, the same string from two chunks would be joined to itself.
    """

    def __init__(self) -> None:
        self._last: Mapping[str, Any] = {}
        self._finish_reason: str | None = None
        self._usage: UsageMetadata | None = None

    def text(self, chunk: Mapping[str, Any]) -> ChatGenerationChunk | None:
        """What a chunk adds to the text; None where it adds nothing."""
        self._last = chunk
        self._usage = usage_metadata(chunk.get("usage")) or self._usage
        if not chunk["choices"]:
            return None
        choice = chunk["choices"][0]
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        content = choice["delta"].get("content")
        return _chunk(content, response_metadata={"model_provider": PROVIDER}) if content else None

    def last(self) -> ChatGenerationChunk:
        """The empty chunk that ends the stream, with all that is known about the answer."""
        info = {"finish_reason": self._finish_reason} if self._finish_reason else None
        return ChatGenerationChunk(
            message=AIMessageChunk(
                content="",
                usage_metadata=self._usage,
                response_metadata=_response_metadata(self._last),
                chunk_position="last",
            ),
            generation_info=info,
        )


def _chunk(content: str, **fields: Any) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk(content=content, **fields))


def usage_metadata(usage: Mapping[str, Any] | None) -> UsageMetadata | None:
    """LangChain's form of OpenAI's usage; all in tokens."""
    if usage is None:
        return None
    details = usage.get("prompt_tokens_details") or {}
    return UsageMetadata(
        input_tokens=usage["prompt_tokens"],
        output_tokens=usage["completion_tokens"],
        total_tokens=usage["total_tokens"],
        input_token_details=InputTokenDetails(cache_read=details.get("cached_tokens") or 0),
    )


def _response_metadata(response: Mapping[str, Any]) -> dict[str, Any]:
    return {"model_name": response.get("model") or "", "model_provider": PROVIDER}
