"""Symbolic values: what a step's input or output is known to be before anything runs.

Plain Python values stand for themselves, and dicts, lists and tuples may hold symbolic values. Beside
them:

    Text      a string in pieces, some of which are the values of Semantic Variables
    Answer    the message that an LLM call will give; its text is a variable
    Prompt    messages made of texts, ready for an LLM
    Unknown   what only the run will tell: behind a graph break
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from parrot_backend.wire.messages import Role, Segment, TextSegment, VariableSegment

_MANY = 50


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
    """The message that a planned call will give.

    `schema` is the JSON schema that its text follows, None where it need not be JSON.
    """

    text: Text
    schema: Mapping[str, Any] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class PromptMessage:
    """One message of a prompt; `other` has what it is beside its text, as it goes over the wire."""

    role: Role
    text: Text
    other: Mapping[str, Any] = field(default_factory=dict)


def literal_message(wire: Mapping[str, Any]) -> PromptMessage:
    """A message that is known whole, as it goes over the wire.

    Raises:
        BreakError: its content is not a text.
    """
    content = wire.get("content") or ""
    if not isinstance(content, str):
        raise BreakError("a message has more than a text, which can't be in a plan")
    other = {name: value for name, value in wire.items() if name not in {"role", "content"}}
    return PromptMessage(wire["role"], Text((content,)), other)


@dataclass(frozen=True, slots=True)
class Prompt:
    """Messages, ready for an LLM."""

    messages: tuple[PromptMessage, ...]


@dataclass(frozen=True, slots=True)
class Break:
    """A graph break: planning stops along this edge, and the run goes on without it.

    `where` names what stopped it, `location` its file and line, `step` the way to it from the whole
    runnable. `reads` are the variables that it gets, and the outputs of the breaks before it.
    """

    where: str
    reason: str
    remedy: str = ""
    location: str = ""
    step: str = ""
    reads: tuple[str, ...] = ()
    output: str = ""


class BreakError(ValueError):
    """A step can't be planned: for what reason, and what the user could do about it.

    `where` names the step, where its own name says little.
    """

    def __init__(self, reason: str, remedy: str = "", where: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy
        self.where = where


class Unknown:
    """A value that only the run will tell.

    Steps that need it wait in `then`, and are planned when it is settled: with the value itself, or
    with what is known of it by then. `behind` has what can only be known behind it; the steps that
    it keeps from being planned are in `keeps`, each as the answer to whether it makes LLM calls.
    `source` is the output of the graph break that it comes from.
    """

    __slots__ = ("_readers", "_settled", "_value", "behind", "keeps", "source")

    known_in_part = False

    def __init__(self) -> None:
        self._settled = False
        self.behind: list[Unknown] = []
        self.keeps: list[Callable[[], bool]] = []
        self.source = ""
        self._value: Any = None
        self._readers: list[Callable[[], None]] = []

    @property
    def settled(self) -> bool:
        """Whether it is known by now."""
        return self._settled

    @property
    def value(self) -> Any:
        """What it was settled with; None before that."""
        return self._value

    @property
    def awaited(self) -> bool:
        """Whether a step waits for it."""
        return bool(self._readers)

    def then(self, reader: Callable[[], None]) -> None:
        """Call `reader` when this is settled; now, or behind those that are due, if it is."""
        if self.settled:
            _run([reader])
        else:
            self._readers.append(reader)

    def settle(self, value: Any) -> None:
        """Make the value known; the first one stays. Settled with another unknown, it follows that.

        Of a value that is known in part, the part that is known is value enough.
        """
        if self._settled:
            return
        if isinstance(value, Unknown) and not value.known_in_part:
            value.behind.append(self)
            self.source = value.source
            value.then(lambda: self.settle(value.value))
            return
        self._settled, self._value = True, value
        readers, self._readers = self._readers, []
        _run(readers)


class Entry(Unknown):
    """Settled when the run comes to a step that it may never come to; nobody waits for it otherwise."""

    __slots__ = ()


class _Running(threading.local):
    """The readers that a thread has still to call."""

    queue: deque[Callable[[], None]] | None = None


_running = _Running()


def _run(readers: Iterable[Callable[[], None]]) -> None:
    """Call readers, and those that become ready by it: one after another, however long the chain."""
    if _running.queue is not None:
        _running.queue.extend(readers)
        return
    _running.queue = deque(readers)
    try:
        while _running.queue:
            _running.queue.popleft()()
    finally:
        _running.queue = None


class NotYetError(Exception):
    """A step needs a value that is not known yet: it can be planned when that is settled."""

    def __init__(self, unknown: Unknown) -> None:
        super().__init__("not known yet")
        self.unknown = unknown


def is_a(value: Any, *kinds: type) -> bool:
    """Whether it is of these classes, without asking it: `isinstance` may run a proxy's own code."""
    return issubclass(type(value), kinds)


def known(value: Any) -> Any:
    """`value` with everything in it that has been settled."""
    if is_a(value, Unknown):
        return known(value.value) if value.settled else value
    if is_a(value, dict):
        return {key: known(item) for key, item in dict.items(value)}
    if type(value) in (list, tuple):
        return type(value)(known(item) for item in value)
    return value


def is_symbolic(value: Any) -> bool:
    """Whether anything in `value` is known only when the run gets there."""
    if (held := items(value)) is not None:
        return any(is_symbolic(item) for item in held)
    return is_a(value, Text, Answer, Prompt, Unknown)


def need(value: Any) -> Any:
    """`value`, where all of it is there.

    Raises:
        NotYetError: it, or something in it, is unknown.
    """
    if is_a(value, Unknown):
        raise NotYetError(value)
    for item in items(value) or ():
        need(item)
    return value


def items(value: Any) -> Iterable[Any] | None:
    """What a container holds, without running methods of a class of the user's."""
    if is_a(value, dict):
        return dict.values(value)
    return value if type(value) in (list, tuple) else None


def is_big(value: Any) -> bool:
    """Whether planning with `value` takes milliseconds: it holds many things."""
    stack, count = [value], 0
    while stack and count < _MANY:
        held = list(items(stack.pop()) or ())
        count += len(held)
        stack += held
    return count >= _MANY
