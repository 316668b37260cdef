"""From tokens to text, piece by piece: never half a character, never the beginning of a stop string."""

from collections.abc import Sequence
from typing import Protocol

from parrot_backend.engines.held_text import possible_start

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Decoder(Protocol):
    """The part of a tokenizer that is needed."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        """The text of `token_ids`."""
        ...


class Detokenizer:
    """Text of a growing list of tokens; all pieces together are what decoding all tokens gives.

    Decodes a window that begins one piece back, as a token's text depends on the one before it
    (spaces), and gives text out once it ends with a whole character.
    """

    def __init__(self, tokenizer: Decoder) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._given = 0

    def push(self, token: int) -> str:
        """The text that `token` completes, often "" in the middle of a character."""
        self._window.append(token)
        text = self._new_text()
        if not text or text.endswith(_REPLACEMENT):
            return ""
        del self._window[: self._given]
        self._given = len(self._window)
        return text

    def finish(self) -> str:
        """What is left, an unfinished character as U+FFFD."""
        return self._new_text()

    def _new_text(self) -> str:
        given = self._decode(self._window[: self._given])
        return self._decode(self._window)[len(given) :]

    def _decode(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=True) if tokens else ""


class StopStrings:
    """Lets text through up to the first stop string, which is not part of it.

    Behind `until`, where that comes first, everything is let through.
    """

    def __init__(self, stop: Sequence[str], until: str | None = None) -> None:
        self._stop = stop
        self._until = until if stop else None
        self._held = ""
        self.hit = False

    def push(self, text: str) -> str:
        """What is certain not to belong to a stop string."""
        held = self._held + text
        found = [at for at in (held.find(stop) for stop in self._stop) if at >= 0]
        until = held.find(self._until) if self._until else -1
        if 0 <= until <= min(found, default=until):
            self._stop, self._until, found = (), None, []
        if found:
            self.hit, self._held = True, ""
            return held[: min(found)]
        watched = [*self._stop, self._until] if self._until else self._stop
        certain = len(held) - possible_start(held, watched)
        self._held = held[certain:]
        return held[:certain]

    def finish(self) -> str:
        """What was held back: no stop string came of it."""
        held, self._held = self._held, ""
        return held


class TextStream:
    """Detokenizer and stop strings, one behind the other."""

    def __init__(self, tokenizer: Decoder, stop: Sequence[str], until: str | None = None) -> None:
        self._detokenizer = Detokenizer(tokenizer)
        self._stop = StopStrings(stop, until)

    @property
    def stopped(self) -> bool:
        """Whether a stop string has come."""
        return self._stop.hit

    def push(self, token: int) -> str:
        """The text that `token` makes certain."""
        return self._stop.push(self._detokenizer.push(token))

    def finish(self) -> str:
        """The rest of the text."""
        return self._stop.push(self._detokenizer.finish()) + self._stop.finish()
