"""Texts that many calls of a program share travel once: a long instruction for 1,000 documents, say."""

from collections import Counter

from parrot_backend.wire.messages import SemanticMessage, SharedSegment, Text, TextSegment
from parrot_backend.wire.protocol import Program, SemanticCall

# A shorter text is hardly longer than the segment that would stand for it.
_LEAST = 64
_MOST_TEXTS = 10_000


def packed(program: Program) -> Program:
    """An equal program, in which the literal texts that several of its messages have are shared."""
    texts = [s.text for call in program.calls for m in call.messages for s in _literals(m.content)]
    several = [text for text, count in Counter(texts).items() if count > 1][:_MOST_TEXTS]
    if not several or program.texts:
        return program
    places = {text: index for index, text in enumerate(several)}
    calls = [_packed_call(call, places) for call in program.calls]
    return program.model_copy(update={"texts": several, "calls": calls})


def _literals(content: Text) -> list[TextSegment]:
    return [s for s in content if isinstance(s, TextSegment) and len(s.text) >= _LEAST]


def _packed_call(call: SemanticCall, places: dict[str, int]) -> SemanticCall:
    messages = [_packed_message(message, places) for message in call.messages]
    return call.model_copy(update={"messages": messages})


def _packed_message(message: SemanticMessage, places: dict[str, int]) -> SemanticMessage:
    content = [
        SharedSegment(index=places[segment.text])
        if isinstance(segment, TextSegment) and segment.text in places
        else segment
        for segment in message.content
    ]
    return message.model_copy(update={"content": content})
