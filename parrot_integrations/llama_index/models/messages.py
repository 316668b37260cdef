"""LlamaIndex's messages in OpenAI's wire form, and answers back. Text only."""

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    MessageRole,
    TextBlock,
)

_ROLES = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
}


def to_wire(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Messages as the backend takes them: role and content.

    Raises:
        ValueError: a role or block that this version does not support, named.
    """
    return [{"role": _role(message), "content": _text(message)} for message in messages]


def _role(message: ChatMessage) -> str:
    if message.role not in _ROLES:
        raise ValueError(f"Role {message.role.value!r} is not supported by this version of Parrot.")
    return _ROLES[message.role]


def _text(message: ChatMessage) -> str:
    for block in message.blocks:
        if not isinstance(block, TextBlock):
            raise ValueError(
                f"{type(block).__name__} is not supported by this version of Parrot: the backend's "
                "models read text only."
            )
    return message.content or ""


def chat_response(response: Mapping[str, Any]) -> ChatResponse:
    """The response to a whole chat answer."""
    return ChatResponse(
        message=_assistant(response["choices"][0]["message"]["content"] or ""),
        raw=dict(response),
        additional_kwargs=_token_counts(response),
    )


def completion(response: ChatResponse) -> CompletionResponse:
    """A chat response as the completion of one user message."""
    return CompletionResponse(
        text=response.message.content or "",
        delta=response.delta,
        raw=response.raw,
        additional_kwargs=response.additional_kwargs,
    )


class ChunkTranslator:
    """Turns the chunks of one streamed answer into responses, each with all the text so far."""

    def __init__(self) -> None:
        self._text = ""

    def response(self, chunk: Mapping[str, Any]) -> ChatResponse:
        """The response after a chunk; the last one has the token counts."""
        delta = chunk["choices"][0]["delta"].get("content") or "" if chunk["choices"] else ""
        self._text += delta
        return ChatResponse(
            message=_assistant(self._text),
            delta=delta,
            raw=dict(chunk),
            additional_kwargs=_token_counts(chunk),
        )


def _assistant(text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.ASSISTANT, content=text)


def _token_counts(response: Mapping[str, Any]) -> dict[str, int]:
    usage = response.get("usage")
    if not usage:
        return {}
    details = usage.get("prompt_tokens_details") or {}
    return {
        "prompt_tokens": usage["prompt_tokens"],
        "completion_tokens": usage["completion_tokens"],
        "total_tokens": usage["total_tokens"],
        "cached_tokens": details.get("cached_tokens") or 0,
    }
