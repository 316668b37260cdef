"""Calls in OpenAI's shapes: chat completions, their chunks, usage and logprobs."""

from collections.abc import Iterable
from typing import Any

from parrot_backend.engines.base import Candidate, Delta, TokenLogprobs
from parrot_backend.serving.call import Call


def completion(calls: list[Call]) -> dict[str, Any]:
    """Ended calls, the choices of one request, as a `chat.completion` object."""
    return {
        **_base(calls, "chat.completion"),
        "choices": [_choice(index, call) for index, call in enumerate(calls)],
        "usage": usage(calls),
    }


def chunk(calls: list[Call], index: int, step: Delta, *, first: bool) -> dict[str, Any]:
    """One step of choice `index` as a `chat.completion.chunk`; the choice's first names the role."""
    delta = {"content": step.text} if step.text or first else {}
    choice = {
        "index": index,
        "delta": {"role": "assistant", **delta} if first else delta,
        "logprobs": _logprobs(step.logprobs) if step.logprobs else None,
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
    prompt = calls[0].prompt_tokens
    generated = sum(call.completion_tokens for call in calls)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": min(call.cached_tokens for call in calls)},
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
    return {
        "index": index,
        "message": {"role": "assistant", "content": call.text, "refusal": None},
        "logprobs": _logprobs(call.logprobs) if wanted else None,
        "finish_reason": call.finish_reason,
    }


def _logprobs(tokens: Iterable[TokenLogprobs]) -> dict[str, Any]:
    content = [
        {**_candidate(token.chosen), "top_logprobs": [_candidate(other) for other in token.top]}
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {
        "token": candidate.content.decode(errors="replace"),
        "logprob": candidate.logprob,
        "bytes": list(candidate.content),
    }
