"""Messages: chats as they are sent, and those of semantic calls, whose contents are segments.

A segment is literal text, its own or one of its program's shared texts, or a reference to a Semantic
Variable (Parrot, OSDI'24, section 4.1).
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from parrot_backend.wire.parameters import WireModel
from parrot_backend.wire.tools import ToolCall
from parrot_backend.wire.unicode import Unicode

Role = Literal["system", "user", "assistant", "tool"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:\-]{1,128}$")]


class TextSegment(WireModel):
    """Literal text of a message."""

    type: Literal["text"] = "text"
    text: Unicode


class VariableSegment(WireModel):
    """The place in a message where a Semantic Variable's value goes."""

    type: Literal["variable"] = "variable"
    name: Name


class SharedSegment(WireModel):
    """The place in a message where one of its program's `texts` goes, which then travels once."""

    type: Literal["shared"] = "shared"
    index: int = Field(ge=0)


Segment = Annotated[TextSegment | VariableSegment | SharedSegment, Field(discriminator="type")]
Text = list[Segment]


def _joined_text(content: Any) -> Any:
    """OpenAI lets content be a list of text parts; here it is one string."""
    if content is None:
        return ""
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        return content
    for part in content:
        if part.get("type") != "text":
            kind = part.get("type")
            raise ValueError(f"content parts of type {kind!r} are not supported: text only")
    return "".join(str(part.get("text", "")) for part in content)


def _openai_role(role: Any) -> Any:
    return "system" if role == "developer" else role


# What OpenAI's answers have and a message that is sent back need not have.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "tool_calls": (None, []),
    "refusal": (None,),
    "audio": (None,),
    "function_call": (None,),
    "annotations": (None, []),
}


class Message(WireModel):
    """A message without its content; `tool_call_id` is that of the call whose result it is."""

    role: Annotated[Role, BeforeValidator(_openai_role)]
    name: Unicode | None = None
    tool_calls: list[ToolCall] | None = Field(default=None, max_length=128)
    tool_call_id: Unicode | None = Field(default=None, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_neutral(cls, message: Any) -> Any:
        if not isinstance(message, dict):
            return message
        return {k: v for k, v in message.items() if k not in _NEUTRAL or v not in _NEUTRAL[k]}

    @field_validator("tool_calls")
    @classmethod
    def _only_the_assistant_calls(
        cls, calls: list[ToolCall] | None, others: ValidationInfo
    ) -> list[ToolCall] | None:
        if calls and others.data.get("role", "assistant") != "assistant":
            raise ValueError("only messages of the assistant have tool calls")
        return calls

    @field_validator("tool_call_id")
    @classmethod
    def _only_tools_answer(cls, call_id: str | None, others: ValidationInfo) -> str | None:
        if (call_id is not None) != (others.data.get("role") == "tool"):
            raise ValueError("a tool's message, and no other, has the id of the call it answers")
        return call_id


class ChatMessage(Message):
    """One message of a chat, its content one string."""

    content: Annotated[Unicode, BeforeValidator(_joined_text)] = ""


class SemanticMessage(Message):
    """One message of a semantic call, its content segments that are joined without separator."""

    content: Annotated[Text, BeforeValidator(lambda text: [] if text is None else text)] = Field(
        default_factory=list
    )


AnyMessage = TypeVar("AnyMessage", bound=Message)


def _answering_calls(messages: list[AnyMessage]) -> list[AnyMessage]:
    """A result without its call would be refused by one chat template and lost by another."""
    called: set[str | None] = {None}
    for index, message in enumerate(messages):
        if message.tool_call_id not in called:
            raise ValueError(
                f"messages.{index}.tool_call_id: no call before it has the id "
                f"'{message.tool_call_id}'"
            )
        called.update(call.id for call in message.tool_calls or ())
    return messages


Messages = Annotated[
    list[AnyMessage], Field(min_length=1, max_length=4096), AfterValidator(_answering_calls)
]
