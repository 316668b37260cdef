"""LangChain's messages in OpenAI's wire form. Text only."""

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
)

_ROLES: tuple[tuple[type[BaseMessage], str], ...] = (
    (HumanMessage, "user"),
    (AIMessage, "assistant"),
    (SystemMessage, "system"),
)


def to_wire(message: BaseMessage) -> dict[str, Any]:
    """A message as the backend takes it: role, content, and name where it has one.

    Raises:
        ValueError: a kind of message or content that this version does not support, named.
    """
    if isinstance(message, AIMessage) and (message.tool_calls or message.invalid_tool_calls):
        raise ValueError("AIMessage.tool_calls are not supported by this version of ChatParrot.")
    wire: dict[str, Any] = {"role": wire_role(message), "content": text_content(message.content)}
    if message.name:
        wire["name"] = message.name
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


def text_content(content: str | list[Any]) -> str:
    """The text of a content, its parts joined without separator.

    Raises:
        ValueError: a part that is not text.
    """
    if isinstance(content, str):
        return content
    return "".join(part if isinstance(part, str) else _part_text(part) for part in content)


def _part_text(part: Mapping[str, Any]) -> str:
    if part.get("type") != "text":
        raise ValueError(
            f"Content of type {part.get('type')!r} is not supported by this version of ChatParrot: "
            "the backend's models read text only."
        )
    return str(part["text"])
