"""LangChain's messages in OpenAI's wire form. Text and tool calls only."""

from collections.abc import Collection, Mapping
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    InvalidToolCall,
    SystemMessage,
    ToolCall,
    ToolMessage,
)

from parrot_integrations.client.chat.calls import wire_call

_ROLES: tuple[tuple[type[BaseMessage], str], ...] = (
    (HumanMessage, "user"),
    (AIMessage, "assistant"),
    (SystemMessage, "system"),
    (ToolMessage, "tool"),
)

# Parts of an answer that its `tool_calls` tell as well, and thoughts that templates leave out.
_TOLD_ELSEWHERE = frozenset(
    {"tool_call", "tool_call_chunk", "invalid_tool_call", "tool_use", "reasoning", "thinking"}
)


def to_wire(message: BaseMessage) -> dict[str, Any]:
    """A message as the backend takes it: role and content; name and tool calls where it has any.

    Raises:
        ValueError: a kind of message or content that this version does not support, named.
    """
    of_model = isinstance(message, AIMessage)
    wire: dict[str, Any] = {
        "role": wire_role(message),
        "content": text_content(message.content, without=_TOLD_ELSEWHERE if of_model else ()),
    }
    if message.name:
        wire["name"] = message.name
    if isinstance(message, ToolMessage):
        wire["tool_call_id"] = message.tool_call_id
    if isinstance(message, AIMessage) and (calls := wire_tool_calls(message)):
        wire["tool_calls"] = calls
    return wire


def wire_role(message: BaseMessage) -> str:
    """OpenAI's role of a message.

    Raises:
        ValueError: a kind of message that this version does not support.
    """
    if isinstance(message, ChatMessage):
        return message.role
    for kind, role in _ROLES:
        if isinstance(message, kind):
            return role
    raise ValueError(f"{type(message).__name__} is not supported by this version of ChatParrot.")


def wire_tool_calls(message: AIMessage) -> list[dict[str, Any]]:
    """The tool calls of an answer, invalid ones as the model wrote them."""
    valid = [_wire_call(call) for call in message.tool_calls]
    return valid + [_wire_call(call) for call in message.invalid_tool_calls]


def _wire_call(call: ToolCall | InvalidToolCall) -> dict[str, Any]:
    arguments = "" if call["args"] is None else call["args"]
    return wire_call(call["id"], call["name"] or "", arguments)


def text_content(content: str | list[Any], *, without: Collection[str] = ()) -> str:
    """The text of a content, its parts joined without separator.

    Args:
        content: a text, or parts.
        without: types of parts that are left out.

    Raises:
        ValueError: a part that is not text.
    """
    if isinstance(content, str):
        return content
    return "".join(
        part if isinstance(part, str) else _part_text(part)
        for part in content
        if isinstance(part, str) or part.get("type") not in without
    )


def _part_text(part: Mapping[str, Any]) -> str:
    if part.get("type") != "text":
        raise ValueError(
            f"Content of type {part.get('type')!r} is not supported by this version of ChatParrot: "
            "the backend's models read text only."
        )
    return str(part["text"])
