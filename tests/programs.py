"""Short ways to write programs in tests: `{name}` in a text is a variable."""

import re

from parrot_backend.program.graph import Graph
from parrot_backend.serving.call import Call
from parrot_backend.wire.messages import (
    ChatMessage,
    SemanticMessage,
    Text,
    TextSegment,
    VariableSegment,
)
from parrot_backend.wire.protocol import ChatRequest, Program, SemanticCall
from parrot_backend.wire.transforms import Transform
from parrot_backend.wire.views import CallState


def text(template: str) -> Text:
    pieces = re.split(r"(\{[^}]+\})", template)
    return [
        VariableSegment(name=piece[1:-1]) if piece.startswith("{") else TextSegment(text=piece)
        for piece in pieces
        if piece
    ]


def call(call_id: str, template: str, output: str | None = None) -> SemanticCall:
    message = SemanticMessage(role="user", content=text(template))
    return SemanticCall(id=call_id, messages=[message], output=output or f"{call_id}.out")


def join(output: str, separator: str, *templates: str) -> Transform:
    return Transform(inputs=[text(t) for t in templates], separator=separator, output=output)


def request(content: str, **parameters: object) -> ChatRequest:
    message = ChatMessage(role="user", content=content)
    return ChatRequest(messages=[message], **parameters)


class Nobody:
    """The owner of calls of which nobody keeps book."""

    def moved(self, call: Call, before: CallState) -> None:
        if call.ended:
            call.tell_end()

    def first_token(self, call: Call) -> None:
        pass

    def left(self, call: Call) -> None:
        pass


def graph_of(program: Program) -> Graph:
    graph = Graph()
    graph.add(program)
    return graph
