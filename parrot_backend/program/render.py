"""From segments to text: the one place where a semantic call becomes an ordinary request.

Everywhere `values` has the variables' values, and `texts` the shared texts of the program.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from parrot_backend.program.transforms import JsonReader, check_length, transformed
from parrot_backend.wire.messages import ChatMessage, Segment, Text, TextSegment, VariableSegment
from parrot_backend.wire.protocol import ChatRequest, SemanticCall
from parrot_backend.wire.tools import ChatParameters
from parrot_backend.wire.transforms import Transform

Values = Mapping[str, str]

_PARAMETERS = frozenset(ChatParameters.model_fields)


def rendered_length(text: Text, values: Values, texts: Sequence[str] = ()) -> int:
    """The characters of a text, known before it is put together."""
    return sum(len(_piece(segment, values, texts)) for segment in text)


def call_length(call: SemanticCall, values: Values, texts: Sequence[str] = ()) -> int:
    """The characters of a call's messages, known before they are put together."""
    return sum(rendered_length(message.content, values, texts) for message in call.messages)


def render_text(text: Text, values: Values, texts: Sequence[str] = ()) -> str:
    """The segments' texts, joined without separator."""
    return "".join([_piece(segment, values, texts) for segment in text])


def render_transform(
    transform: Transform,
    values: Values,
    texts: Sequence[str] = (),
    *,
    most: int | None = None,
    reader: JsonReader | None = None,
) -> str:
    """The value that the transform writes. What would be longer than `most` characters is not built.

    Of several transforms that take fields of one JSON, the same `reader` parses it once.

    Raises:
        DependencyError: its input is no JSON, or has nothing at the path or index.
        InvalidRequestError: the value, or an input, would be too long.
    """
    label = f"an input of {transform.label}"
    inputs = [_bounded(text, values, texts, label) for text in transform.inputs]
    return transformed(transform, inputs, most=most, reader=reader)


def render_call(call: SemanticCall, values: Values, texts: Sequence[str] = ()) -> ChatRequest:
    """The request that the framework will send when it comes to this call.

    Raises:
        InvalidRequestError: a message would be too long.
    """
    given = ((name, getattr(call, name)) for name in call.model_fields_set & _PARAMETERS)
    label = f"a message of {call.label}"
    messages = [
        ChatMessage(
            role=m.role,
            content=_bounded(m.content, values, texts, label),
            name=m.name,
            tool_calls=m.tool_calls,
            tool_call_id=m.tool_call_id,
        )
        for m in call.messages
    ]
    parameters = {name: value for name, value in given if value is not None}
    return ChatRequest(messages=messages, **parameters)


def render_beginning(
    call: SemanticCall, values: Values, example: str, texts: Sequence[str] = ()
) -> ChatRequest:
    """The request up to its first variable that has no value yet, which is `example` here.

    Raises:
        InvalidRequestError: a message would be too long.
    """
    for index, message in enumerate(call.messages):
        for position, segment in enumerate(message.content):
            if isinstance(segment, VariableSegment) and segment.name not in values:
                cut = message.model_copy(update={"content": message.content[: position + 1]})
                call = call.model_copy(update={"messages": [*call.messages[:index], cut]})
                return render_call(call, defaultdict(lambda: example, values), texts)
    return render_call(call, values, texts)


def _bounded(text: Text, values: Values, texts: Sequence[str], label: str) -> str:
    pieces = [_piece(segment, values, texts) for segment in text]
    check_length(sum(map(len, pieces)), label)
    return "".join(pieces)


def _piece(segment: Segment, values: Values, texts: Sequence[str]) -> str:
    if isinstance(segment, TextSegment):
        return segment.text
    return values[segment.name] if isinstance(segment, VariableSegment) else texts[segment.index]
