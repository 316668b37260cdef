"""Answers in OpenAI's wire form as LlamaIndex's responses."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llama_index.core.base.llms import types
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LogProb,
    MessageRole,
    TextBlock,
)

from parrot_integrations.client.chat.usage import token_counts

_CallBlock: Any = getattr(types, "ToolCallBlock", None)


def chat_response(response: Mapping[str, Any]) -> ChatResponse:
    """The response to a whole chat answer."""
    choice = response["choices"][0]
    message = choice["message"]
    return ChatResponse(
        message=assistant(message.get("content") or "", message.get("tool_calls") or ()),
        raw=dict(response),
        logprobs=token_logprobs(choice.get("logprobs")) or None,
        additional_kwargs=told(response, choice.get("finish_reason")),
    )


def completion(response: ChatResponse) -> CompletionResponse:
    """A chat response as the completion of one user message."""
    return CompletionResponse(
        text=response.message.content or "",
        delta=response.delta,
        raw=response.raw,
        logprobs=response.logprobs,
        additional_kwargs=response.additional_kwargs,
    )


def assistant(text: str, calls: Sequence[Mapping[str, Any]] = ()) -> ChatMessage:
    """A message of the model's, with its tool calls in both forms that LlamaIndex has."""
    blocks: list[Any] = [TextBlock(text=text)] if text or not calls else []
    if _CallBlock is not None:
        blocks += [_block(call["id"], **call["function"]) for call in calls]
    beside = {"tool_calls": [dict(call) for call in calls]} if calls else {}
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks, additional_kwargs=beside)


def _block(call_id: str | None, *, name: str, arguments: str) -> Any:
    return _CallBlock(tool_call_id=call_id, tool_name=name, tool_kwargs=arguments or {})


def told(response: Mapping[str, Any], finish_reason: str | None) -> dict[str, Any]:
    """What is told beside a message: the tokens, why it ended, and for how many seconds it waited for
    the engine, each where it is known."""
    beside = {"finish_reason": finish_reason, "queue_time": response.get("queue_time")}
    known = {name: value for name, value in beside.items() if value is not None}
    counts = token_counts(response.get("usage"))
    if counts is not None:
        known |= {f"{name}_tokens": count for name, count in counts._asdict().items()}
    return known


def token_logprobs(told: Mapping[str, Any] | None) -> list[list[LogProb]]:
    """For each token its most likely candidates, or itself where those are not told."""
    content: Iterable[Mapping[str, Any]] = (told or {}).get("content") or ()
    return [[_logprob(each) for each in token.get("top_logprobs") or [token]] for token in content]


def _logprob(candidate: Mapping[str, Any]) -> LogProb:
    return LogProb(
        token=candidate["token"],
        logprob=candidate["logprob"],
        bytes=candidate.get("bytes") or [],
    )
