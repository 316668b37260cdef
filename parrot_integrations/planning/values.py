"""Symbolic values: what a step's input or output is known to be before anything runs.

Plain Python values stand for themselves, and dicts, lists and tuples may hold symbolic values. Beside
them:

    Text      a string in pieces, some of which are the values of Semantic Variables
    Answer    the message that an LLM call will give; its text is a variable
    Prompt    messages made of texts, ready for an LLM
    Unknown   anything: behind a graph break
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from parrot_backend.protocol import Role, Segment, TextSegment, VariableSegment


@dataclass(frozen=True, slots=True)
class Variable:
    """The place of a Semantic Variable's value in a text."""

    name: str


@dataclass(frozen=True, slots=True)
class Text:
    """A string in pieces, joined without separator."""

    pieces: tuple[str | Variable, ...] = ()

    def __add__(self, other: "Text") -> "Text":
        return Text(self.pieces + other.pieces)

    def segments(self) -> list[Segment]:
        """The pieces as they go over the wire; neighbouring literals are one segment."""
        segments: list[Segment] = []
        for piece in self.pieces:
            if isinstance(piece, Variable):
                segments.append(VariableSegment(name=piece.name))
            elif segments and isinstance(segments[-1], TextSegment):
                segments[-1] = TextSegment(text=segments[-1].text + piece)
            elif piece:
                segments.append(TextSegment(text=piece))
        return segments


def concat(texts: Iterable[Text]) -> Text:
    """The texts one behind the other."""
    return Text(tuple(piece for text in texts for piece in text.pieces))


@dataclass(frozen=True, slots=True)
class Answer:
    """The message that a planned call will give."""

    text: Text


@dataclass(frozen=True, slots=True)
class PromptMessage:
    """One message of a prompt."""

    role: Role
    text: Text
    name: str | None = None


def literal_message(wire: Mapping[str, Any]) -> PromptMessage:
    """A message that is known whole, as it goes over the wire."""
    return PromptMessage(wire["role"], Text((wire["content"],)), wire.get("name"))


@dataclass(frozen=True, slots=True)
class Prompt:
    """Messages, ready for an LLM."""

    messages: tuple[PromptMessage, ...]


@dataclass(frozen=True, slots=True)
class Break:
    """A graph break: planning stops along this edge, and the run goes on without it."""

    where: str
    reason: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A value that only the run will know."""


UNKNOWN = Unknown()


def is_symbolic(value: Any) -> bool:
    """Whether anything in `value` is known only when the run gets there."""
    if isinstance(value, dict):
        return any(is_symbolic(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(is_symbolic(item) for item in value)
    return isinstance(value, Text | Answer | Prompt | Unknown)
