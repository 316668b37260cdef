"""From the events of an upstream's answer to our deltas."""

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from parrot_backend.engines.base import (
    Candidate,
    Delta,
    FinishReason,
    TokenLogprobs,
    ToolCallDelta,
)
from parrot_backend.wire.errors import EndpointLostError, EngineError

UNKNOWN_TOKEN = -1
_MOST_TOKENS = 2**31
_REASONS: Mapping[str, FinishReason] = {
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}


class Answer:
    """Reads the events of one answer.

    What ends it is held back until the usage is there, so that the last delta makes the counts right.

    Args:
        place: names the server in errors.
        tells_cached: where it says that no token was cached, that is known; else nobody has counted.
    """

    def __init__(self, place: str, *, tells_cached: bool = True) -> None:
        self._place = place
        self._believed = tells_cached
        self._last: Delta | None = None
        self._calls: dict[tuple[int, str | None], int] = {}
        self._newest: dict[int, int] = {}
        self._counted = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.tells_cached = False
        self.completion_tokens: int | None = None

    def read(self, event: Mapping[str, Any]) -> Delta | None:
        """What an event adds, if it is to be told now.

        Raises:
            EndpointLostError: it is no event of an answer, or the server gave up.
            EngineError: a filter of the server's ended it.
        """
        try:
            return self._read(event)
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError):
            raise EndpointLostError(f"{self._place} sends what is no answer") from None

    def end(self) -> Delta:
        """The last delta: the reason, and the tokens that no other told.

        Raises:
            EndpointLostError: the answer was cut.
        """
        if self._last is None:
            raise EndpointLostError(f"{self._place} broke off in the middle of an answer")
        untold = self._last.untold_tokens
        if self.completion_tokens is not None:
            untold += max(self.completion_tokens - self._counted, 0)
        return replace(
            self._last,
            untold_tokens=untold,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            tells_cached=self.tells_cached,
        )

    def _read(self, event: Mapping[str, Any]) -> Delta | None:
        self._note_usage(event)
        choices = [choice for choice in event.get("choices") or () if not choice.get("index")]
        for told in (event, *choices):
            if ids := told.get("prompt_token_ids"):
                self.prompt_tokens = len(ids)
        if not choices or self._last is not None:  # behind the end nothing more is said
            return None
        delta = self._delta(choices[0])
        if delta.finish_reason is None:
            adds = delta.text or delta.tokens or delta.tool_calls or delta.untold_tokens
            return delta if adds or delta.logprobs else None
        self._last = delta
        return None

    def _delta(self, choice: Mapping[str, Any]) -> Delta:
        body = choice.get("delta") or {}
        text = choice.get("text") or body.get("content") or ""
        if not isinstance(text, str):
            raise TypeError(text)
        text = _text(text)
        reason = self._reason(choice.get("finish_reason"))
        tokens = tuple(int(token) for token in choice.get("token_ids") or ())
        thought = body.get("reasoning") or body.get("reasoning_content")
        untold = 1 if not tokens and (text or thought) else 0
        self._counted += len(tokens) + untold
        told = choice.get("logprobs")
        logprobs = _logprobs(told, tokens) if told else ()
        if reason == "stop" and logprobs and not _is_end_of(logprobs[-1], text):
            logprobs = logprobs[:-1]
        pieces = tuple(self._piece(piece) for piece in body.get("tool_calls") or ())
        if reason == "stop" and (pieces or self._calls):
            reason = "tool_calls"
        return Delta(
            text,
            tokens,
            self.cached_tokens,
            reason,
            logprobs,
            tool_calls=pieces,
            prompt_tokens=self.prompt_tokens,
            untold_tokens=untold,
            tells_cached=self.tells_cached,
        )

    def _reason(self, told: str | None) -> FinishReason | None:
        if not told:
            return None
        if told == "content_filter":
            raise EngineError(f"a filter of {self._place} ended the answer")
        if told in ("abort", "error"):
            raise EndpointLostError(f"{self._place} gave the answer up ({told})")
        return _REASONS.get(told, "stop")

    def _piece(self, piece: Mapping[str, Any]) -> ToolCallDelta:
        """A piece under our own numbers: some servers send each call whole, all with the index 0."""
        index, call_id, function = int(piece.get("index") or 0), piece.get("id"), piece["function"]
        call_id = call_id or None  # some servers send "" with all pieces but the first
        arguments = function.get("arguments") or ""
        if not isinstance(arguments, str):
            raise TypeError(arguments)
        known = self._newest.get(index) if call_id is None else self._calls.get((index, call_id))
        if known is not None:
            return ToolCallDelta(known, _text(arguments))
        if not (name := function.get("name")):
            raise ValueError("a call of no tool")
        call_id = call_id or f"call_{secrets.token_hex(12)}"
        number = self._calls[index, call_id] = self._newest[index] = len(self._calls)
        return ToolCallDelta(number, _text(arguments), id=_text(call_id), name=_text(name))

    def _note_usage(self, event: Mapping[str, Any]) -> None:
        if usage := event.get("usage"):
            self.prompt_tokens = _count(usage.get("prompt_tokens") or self.prompt_tokens)
            self.completion_tokens = _count(usage.get("completion_tokens") or 0)
            details = usage.get("prompt_tokens_details") or {}
            self._note_cached(details.get("cached_tokens"))
        self._note_cached((event.get("timings") or {}).get("cache_n"))

    def _note_cached(self, told: Any) -> None:
        if told is not None and (_count(told) or self._believed):
            self.cached_tokens, self.tells_cached = max(_count(told), self.cached_tokens), True


def _count(told: Any) -> int:
    """Tokens: none where fewer are told."""
    return min(max(int(told), 0), _MOST_TOKENS)


def _text(told: Any) -> str:
    """What can be written on: JSON can hold halves of characters."""
    return str(told).encode(errors="replace").decode() if not str(told).isascii() else str(told)


def _logprobs(told: Mapping[str, Any], tokens: tuple[int, ...]) -> tuple[TokenLogprobs, ...]:
    """Those of a chunk: as chats have them (`content`), or as completions have."""
    if (content := told.get("content")) is not None:
        known = tokens if len(tokens) == len(content) else (None,) * len(content)
        return tuple(
            TokenLogprobs(
                _candidate(entry, token),
                tuple(_candidate(other) for other in entry.get("top_logprobs") or ()),
            )
            for entry, token in zip(content, known, strict=True)
        )
    texts = told.get("tokens") or ()
    tops = told.get("top_logprobs") or [None] * len(texts)
    chosen = zip(texts, told.get("token_logprobs") or (), tops, strict=True)
    return tuple(
        TokenLogprobs(
            Candidate(UNKNOWN_TOKEN, text.encode(), float(logprob or 0.0)),
            tuple(Candidate(UNKNOWN_TOKEN, t.encode(), v) for t, v in (top or {}).items()),
        )
        for text, logprob, top in chosen
    )


def _candidate(entry: Mapping[str, Any], token: int | None = None) -> Candidate:
    """One of a chat's; llama.cpp tells its `id`."""
    content = entry.get("bytes")
    text = bytes(content) if content is not None else str(entry["token"]).encode()
    token = int(entry.get("id", UNKNOWN_TOKEN)) if token is None else token
    return Candidate(token, text, float(entry["logprob"]))


def _is_end_of(token: TokenLogprobs, text: str) -> bool:
    """Whether a token is part of the text: the one that ends the answer is not."""
    return bool(token.chosen.content) and text.encode().endswith(token.chosen.content)
