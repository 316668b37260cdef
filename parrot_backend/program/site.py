"""The call site: calls that are made alike are likely to have answers of one length."""

from collections.abc import Sequence
from hashlib import blake2b

from parrot_backend.wire.messages import Segment, TextSegment, VariableSegment
from parrot_backend.wire.protocol import SemanticCall
from parrot_backend.wire.tools import ChatParameters

# Longer literals are taken for what is asked about, as the chunk of a map is, and not for the question.
_LONGEST_LITERAL = 255
_PARAMETERS = frozenset(ChatParameters.model_fields) - {"seed"}


def site_of(call: SemanticCall, texts: Sequence[str] = ()) -> str:
    """A short name for where a call comes from: its short literal texts, and its parameters.

    Neither its id nor what its variables hold is part of it. `texts` are its program's shared texts.
    """
    parts = []
    for name in sorted(call.model_fields_set & _PARAMETERS):
        if (value := getattr(call, name)) is not None:
            parts.append(f"{name}={value!r}")
    for message in call.messages:
        parts.append(message.role)
        parts += [_literal(segment, texts) for segment in message.content]
    return blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()


def _literal(segment: Segment, texts: Sequence[str]) -> str:
    if isinstance(segment, VariableSegment):
        return ""
    text = segment.text if isinstance(segment, TextSegment) else texts[segment.index]
    return text if len(text) <= _LONGEST_LITERAL else ""
