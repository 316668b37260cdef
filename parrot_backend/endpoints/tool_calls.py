"""Tells text and tool calls apart in an answer, while it is generated."""

import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import replace

from parrot_backend.endpoints.tool_grammar import may_call, must_call
from parrot_backend.engines.base import Delta, ToolCallDelta
from parrot_backend.engines.held_text import possible_start
from parrot_backend.engines.tool_format import ENDING, OPENING, head_of
from parrot_backend.wire.parameters import GenerationParameters
from parrot_backend.wire.tools import FunctionCall, ToolCall

_HEAD = re.compile(re.escape(head_of("NAME")).replace("NAME", r"([a-zA-Z0-9_-]+)"))


def reader_of(request: GenerationParameters) -> Callable[[Delta], Delta]:
    """Reads the deltas of the answer to `request`, one after the other."""
    return ToolCallReader(forced=must_call(request)).read if may_call(request) else _as_it_is


def _as_it_is(delta: Delta) -> Delta:
    return delta


def assembled(pieces: Iterable[ToolCallDelta]) -> list[ToolCall]:
    """The calls that pieces make up."""
    calls: list[ToolCall] = []
    for piece in pieces:
        if piece.id is not None and piece.name is not None:
            calls.append(ToolCall(id=piece.id, function=FunctionCall(name=piece.name)))
        calls[piece.index].function.arguments += piece.arguments
    return calls


class ToolCallReader:
    """Reads the deltas of one answer, which is written as `tool_format` says.

        text <tool_call> head arguments ending <tool_call> head arguments ending
        `----------------´              `---- and so on, until the answer ends

    White space around calls belongs to nothing. A call that is cut short is there from its name on,
    its arguments as far as they came.

    Args:
        forced: the answer is nothing but calls, so that a cut opening is no text.
    """

    def __init__(self, *, forced: bool) -> None:
        self._forced = forced
        self._held = ""
        self._calls = 0
        self._text = ""
        self._fragments: list[ToolCallDelta] = []
        self._proceed: Callable[[], bool] = self._read_text

    def read(self, delta: Delta) -> Delta:
        """The delta with its text split into text and tool calls, as far as it is certain."""
        self._text, self._fragments = "", []
        self._held += delta.text
        while self._proceed():
            pass
        reason = delta.finish_reason
        if reason is not None and not self._calls and not self._forced and self._in_text:
            self._text += self._held
        if reason == "stop" and self._calls:
            reason = "tool_calls"
        return replace(
            delta, text=self._text, tool_calls=tuple(self._fragments), finish_reason=reason
        )

    @property
    def _in_text(self) -> bool:
        return self._proceed == self._read_text

    def _read_text(self) -> bool:
        text, opening, rest = self._held.partition(OPENING)
        if not opening:
            text = text[: len(text) - possible_start(text, [OPENING])]
        text = text.rstrip()
        self._text += text
        self._held = rest if opening else self._held[len(text) :]
        if opening:
            self._proceed = self._read_head
        return bool(opening)

    def _read_head(self) -> bool:
        head = _HEAD.match(self._held)
        if head is None:
            return False
        self._held = self._held[head.end() :]
        call_id = f"call_{secrets.token_hex(12)}"
        self._fragments.append(ToolCallDelta(self._calls, "", id=call_id, name=head[1]))
        self._calls += 1
        self._proceed = self._read_arguments
        return True

    def _read_arguments(self) -> bool:
        arguments, ending, rest = self._held.partition(ENDING)
        if not ending:
            arguments = arguments[: len(arguments) - possible_start(arguments, [ENDING])]
        if arguments:
            self._add(arguments)
        self._held = rest if ending else self._held[len(arguments) :]
        if ending:
            self._proceed = self._read_text
        return bool(ending)

    def _add(self, arguments: str) -> None:
        """One piece of a call in a delta: of two, OpenAI's client, version 2, makes two calls."""
        if self._fragments and self._fragments[-1].index == self._calls - 1:
            last = self._fragments.pop()
            self._fragments.append(replace(last, arguments=last.arguments + arguments))
        else:
            self._fragments.append(ToolCallDelta(self._calls - 1, arguments))
