"""Calls in OpenAI's older shapes: text completions, their chunks, usage and logprobs."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from parrot_backend.api.answers.completion import total_usage
from parrot_backend.engines.base import Candidate, Delta, TokenLogprobs
from parrot_backend.serving.call import Call


class TextShape:
    """How the calls of one request are told; `n` of them in a row have one prompt."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._told: dict[int, int] = {}

    def completion(self, calls: list[Call]) -> dict[str, Any]:
        """Ended calls as a `text_completion` object; its long lists are iterators."""
        choices = (_whole_choice(index, call) for index, call in enumerate(calls))
        return {**_base(calls), "choices": choices, "usage": self._usage(calls)}

    def chunk(self, calls: list[Call], index: int, step: Delta, *, first: bool) -> dict[str, Any]:
        """One step of choice `index`, in the same shape."""
        logprobs = None
        if step.logprobs:
            columns = _logprobs(step.logprobs, self._told.get(index, 0))
            logprobs = {name: list(column) for name, column in columns.items()}
            self._told[index] = logprobs["text_offset"][-1] + len(logprobs["tokens"][-1])
        return {
            **_base(calls),
            "choices": [_choice(index, step.text, logprobs, step.finish_reason)],
        }

    def usage_chunk(self, calls: list[Call]) -> dict[str, Any]:
        """The last chunk of a stream that was asked for its usage."""
        return {**_base(calls), "choices": [], "usage": self._usage(calls)}

    def _usage(self, calls: list[Call]) -> dict[str, Any]:
        """Tokens of all prompts, each of them counted once."""
        return total_usage([calls[i : i + self._n] for i in range(0, len(calls), self._n)])


def _base(calls: list[Call]) -> dict[str, Any]:
    call = calls[0]
    return {
        "id": call.id,
        "object": "text_completion",
        "created": int(call.created),
        "model": call.request.model if call.request is not None else None,
    }


def _whole_choice(index: int, call: Call) -> dict[str, Any]:
    wanted = call.request is not None and call.request.logprobs
    logprobs = _logprobs(call.logprobs, 0) if wanted else None
    return _choice(index, call.text, logprobs, call.finish_reason)


def _choice(
    index: int, text: str, logprobs: Mapping[str, Any] | None, finish_reason: str | None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


def _logprobs(tokens: Sequence[TokenLogprobs], offset: int) -> dict[str, Iterator[Any]]:
    """One list for each property of the tokens; the first begins `offset` characters in the text."""
    lengths = (len(_text(token.chosen)) for token in tokens[:-1])
    return {
        "tokens": (_text(token.chosen) for token in tokens),
        "token_logprobs": (token.chosen.logprob for token in tokens),
        "top_logprobs": ({_text(other): other.logprob for other in token.top} for token in tokens),
        "text_offset": accumulate(lengths, initial=offset),
    }


def _text(candidate: Candidate) -> str:
    return candidate.content.decode(errors="replace")
