"""Answers to come, as strings that the framework's code can carry through its own.

A marker is a string with a name in it that nobody else can have written. What is done to it shows:
white space at its ends, which `strip` takes away, and characters that `repr` and JSON escape. It is as
long as the answer is likely to be, for texts are packed by their lengths; one that is cut to fit shows
too, and what is packed of it can't be told before the answer is there.
"""

import re
import secrets
from collections.abc import Callable, Iterator

from parrot_integrations.planning.values import BreakError, Text, Variable

# White space to `str.strip`, and no separator that a text is split at.
_EDGE = "\x1f"
# Of the private use area: what escapes anything escapes these.
_OPEN, _CLOSE = "\ue0d0", "\ue0d1"
# A token to most tokenizers, and a place at which a text can be cut.
_WORD = " w"


class Markers:
    """The markers of one run."""

    def __init__(self) -> None:
        self._nonce = secrets.token_hex(3)
        self._name = re.compile(
            f"({_EDGE}?){_OPEN}{self._nonce}-([a-z]+-[0-9]+)(?:{_WORD})*{_CLOSE}({_EDGE}?)"
        )

    def marker(self, variable: Variable, tokens: int = 0) -> str:
        """The string that stands for a variable's value, which has about so many tokens."""
        return f"{_EDGE}{_OPEN}{self._nonce}-{variable.name}{_WORD * tokens}{_CLOSE}{_EDGE}"

    def is_in(self, text: str) -> bool:
        """Whether an answer to come, or something made of one, is in a text."""
        return _OPEN in text or _CLOSE in text or self._nonce in text

    def read(self, text: str, changed: Callable[[str, Text], Text]) -> Text:
        """The text in pieces, with variables where its markers are.

        Args:
            text: what a prompt has.
            changed: gives the variable that a transform makes of another.

        Raises:
            BreakError: something else than white space was taken from an answer to come.
        """
        if not self.is_in(text):
            return Text((text,)) if text else Text()
        pieces = tuple(self._pieces(text, changed))
        if any(isinstance(piece, str) and self.is_in(piece) for piece in pieces):
            raise BreakError("changes an answer before it goes on")
        return Text(pieces)

    def _pieces(self, text: str, changed: Callable[[str, Text], Text]) -> Iterator[str | Variable]:
        end = 0
        for found in self._name.finditer(text):
            if found.start() > end:
                yield text[end : found.start()]
            before, name, after = found.groups()
            answer = Text((Variable(name),))
            if not before or not after:
                operation = "strip" if not before and not after else "lstrip" if after else "rstrip"
                answer = changed(operation, answer)
            yield from answer.pieces
            end = found.end()
        if end < len(text):
            yield text[end:]
