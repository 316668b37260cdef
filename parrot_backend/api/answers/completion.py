"""Calls in OpenAI's shapes: chat completions, their chunks, usage and logprobs."""

from collections.abc import Iterable, Iterator
from typing import Any

from parrot_backend.endpoints.tool_grammar import may_call
from parrot_backend.engines.base import Candidate, Delta, TokenLogprobs, ToolCallDelta
from parrot_backend.serving.call import Call


def completion(calls: list[Call]) -> dict[str, Any]:
    """Ended calls, the choices of one request, as a `chat.completion` object.

    Its long lists are iterators (see `json_pieces`): what a choice says is made when it is its turn.
    """
    return {
        **_base(calls, "chat.completion"),
        "choices": (_choice(index, call) for index, call in enumerate(calls)),
        "usage": usage(calls),
    }


def chunk(calls: list[Call], index: int, step: Delta, *, first: bool) -> dict[str, Any]:
    """One step of choice `index` as a `chat.completion.chunk`; the choice's first names the role."""
    delta: dict[str, Any] = {"role": "assistant"} if first else {}
    if step.text or first:
        delta["content"] = step.text or _no_text(calls[index])
    if step.tool_calls:
        delta["tool_calls"] = [_tool_call_piece(piece) for piece in step.tool_calls]
    choice = {
        "index": index,
        "delta": delta,
        "logprobs": _logprobs(list(_tokens(step.logprobs))) if step.logprobs else None,
        "finish_reason": step.finish_reason,
    }
    return {**_base(calls, "chat.completion.chunk"), "choices": [choice]}


def usage_chunk(calls: list[Call]) -> dict[str, Any]:
    """The last chunk of a stream that was asked for its usage."""
    return {**_base(calls, "chat.completion.chunk"), "choices": [], "usage": usage(calls)}


def usage(calls: list[Call]) -> dict[str, Any]:
    """Tokens of a request. Its choices have one prompt, which is counted once.

    `cached_tokens` of it were there before the first choice began.
    """
    return total_usage([calls])


def total_usage(prompts: list[list[Call]]) -> dict[str, Any]:
    """Tokens of several prompts, each with the calls that answer it; see `usage`."""
    prompt = sum(calls[0].prompt_tokens for calls in prompts)
    cached = sum(min(call.cached_tokens for call in calls) for calls in prompts)
    generated = sum(call.completion_tokens for calls in prompts for call in calls)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _base(calls: list[Call], kind: str) -> dict[str, Any]:
    call = calls[0]
    return {
        "id": call.id,
        "object": kind,
        "created": int(call.created),
        "model": call.request.model if call.request is not None else None,
    }


def _choice(index: int, call: Call) -> dict[str, Any]:
    wanted = call.request is not None and call.request.logprobs
    message: dict[str, Any] = {"role": "assistant", "content": call.text, "refusal": None}
    if tool_calls := call.tool_calls:
        message["content"] = call.text or None
        message["tool_calls"] = [tool_call.model_dump() for tool_call in tool_calls]
    return {
        "index": index,
        "message": message,
        "logprobs": _logprobs(_tokens(call.logprobs)) if wanted else None,
        "finish_reason": call.finish_reason,
    }


def _no_text(call: Call) -> str | None:
    """What an answer begins with: nothing is told of its text yet where it may be tool calls."""
    return None if call.request is not None and may_call(call.request) else ""


def _tool_call_piece(piece: ToolCallDelta) -> dict[str, Any]:
    if piece.id is None:
        return {"index": piece.index, "function": {"arguments": piece.arguments}}
    function = {"name": piece.name, "arguments": piece.arguments}
    return {"index": piece.index, "id": piece.id, "type": "function", "function": function}


def _logprobs(content: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {"content": content, "refusal": None}


def _tokens(tokens: Iterable[TokenLogprobs]) -> Iterator[dict[str, Any]]:
    for token in tokens:
        top = [_candidate(other) for other in token.top]
        yield {**_candidate(token.chosen), "top_logprobs": top}


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {
        "token": candidate.content.decode(errors="replace"),
        "logprob": candidate.logprob,
        "bytes": list(candidate.content),
    }
