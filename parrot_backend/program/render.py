"""From segments to text: the one place where a semantic call becomes an ordinary request."""

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from parrot_backend.wire.errors import DependencyError
from parrot_backend.wire.messages import ChatMessage, Text, TextSegment
from parrot_backend.wire.protocol import ChatRequest, SemanticCall, Transform
from parrot_backend.wire.tools import ChatParameters


def render_text(text: Text, values: Mapping[str, str]) -> str:
    """The segments' texts, joined without separator."""
    return "".join(s.text if isinstance(s, TextSegment) else values[s.name] for s in text)


def render_transform(transform: Transform, values: Mapping[str, str]) -> str:
    """The value that the transform writes.

    Raises:
        DependencyError: its input is no JSON, or has no string at the path.
    """
    texts = [render_text(text, values) for text in transform.inputs]
    if transform.op == "join":
        return transform.separator.join(texts)
    return texts[0].strip() if transform.op == "strip" else _json_field(transform, texts[0])


def _json_field(transform: Transform, text: str) -> str:
    try:
        value: Any = json.loads(text)
        for step in transform.path:
            value = value[step]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise _unfit(transform, f"{type(error).__name__}: {error}") from None
    if not isinstance(value, str):
        raise _unfit(transform, f"it is a {type(value).__name__}, not a string")
    return value


def _unfit(transform: Transform, reason: str) -> DependencyError:
    message = f"{transform.label} finds no {transform.description} in its input: {reason}"
    return DependencyError(message, param=transform.output)


def render_call(call: SemanticCall, values: Mapping[str, str]) -> ChatRequest:
    """The request that the framework will send when it comes to this call."""
    parameters = {name: getattr(call, name) for name in ChatParameters.model_fields}
    messages = [
        ChatMessage(
            role=m.role,
            content=render_text(m.content, values),
            name=m.name,
            tool_calls=m.tool_calls,
            tool_call_id=m.tool_call_id,
        )
        for m in call.messages
    ]
    return ChatRequest(messages=messages, **parameters)


def render_beginning(call: SemanticCall, values: Mapping[str, str], example: str) -> ChatRequest:
    """The request up to its first variable that has no value yet, which is `example` here."""
    for index, message in enumerate(call.messages):
        for position, segment in enumerate(message.content):
            if not isinstance(segment, TextSegment) and segment.name not in values:
                cut = message.model_copy(update={"content": message.content[: position + 1]})
                call = call.model_copy(update={"messages": [*call.messages[:index], cut]})
                return render_call(call, defaultdict(lambda: example, values))
    return render_call(call, values)
