"""From segments to text: the one place where a semantic call becomes an ordinary request."""

from collections.abc import Mapping

from parrot_backend.parameters import GenerationParameters
from parrot_backend.protocol import (
    ChatMessage,
    ChatRequest,
    SemanticCall,
    Text,
    TextSegment,
    Transform,
)


def render_text(text: Text, values: Mapping[str, str]) -> str:
    """The segments' texts, joined without separator."""
    return "".join(s.text if isinstance(s, TextSegment) else values[s.name] for s in text)


def render_transform(transform: Transform, values: Mapping[str, str]) -> str:
    """The value that the transform writes."""
    return transform.separator.join(render_text(text, values) for text in transform.inputs)


def render_call(call: SemanticCall, values: Mapping[str, str]) -> ChatRequest:
    """The request that the framework will send when it comes to this call."""
    parameters = {name: getattr(call, name) for name in GenerationParameters.model_fields}
    messages = [
        ChatMessage(role=m.role, content=render_text(m.content, values), name=m.name)
        for m in call.messages
    ]
    return ChatRequest(messages=messages, **parameters)
