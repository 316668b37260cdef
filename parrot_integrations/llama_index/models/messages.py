"""LlamaIndex's messages in OpenAI's wire form. Text and tool calls only."""

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole

from parrot_integrations.client.chat.calls import wire_call

_ROLES = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.TOOL: "tool",
    MessageRole.FUNCTION: "tool",
}

# By their names, for not every version has them all. Thoughts are left out of prompts as chat
# templates do, and where to cache is for other backends to know.
_NOT_TEXT = frozenset({"tool_call", "thinking", "cache"})


def to_wire(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Messages as the backend takes them: role and content; name, tool calls and the id of the call
    that a message answers where it has any.

    Raises:
        ValueError: a role, a block or a tool call that is not supported, named.
    """
    return [_message(message) for message in messages]


def _message(message: ChatMessage) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": _role(message), "content": _text(message)}
    told = message.additional_kwargs
    if isinstance(name := told.get("name"), str):
        wire["name"] = name
    # Agents write the id into answers of theirs too, which are no tool's.
    if wire["role"] == "tool" and (call_id := told.get("tool_call_id")) is not None:
        wire["tool_call_id"] = call_id
    if wire["role"] == "assistant" and (calls := tool_calls(message)):
        wire["tool_calls"] = calls
    return wire


def tool_calls(message: ChatMessage) -> list[dict[str, Any]]:
    """The tool calls of a message, as the wire has them: its blocks, or else what is told beside them.

    Raises:
        ValueError: something that is no tool call.
    """
    blocks: list[Any] = [block for block in message.blocks if block.block_type == "tool_call"]
    if blocks:
        return [wire_call(b.tool_call_id, b.tool_name, b.tool_kwargs) for b in blocks]
    return [_told_call(call) for call in message.additional_kwargs.get("tool_calls") or ()]


def _told_call(call: Any) -> dict[str, Any]:
    """A call as some LLM's class has told it: a mapping, or an object of OpenAI's."""
    told = call if isinstance(call, Mapping) else getattr(call, "model_dump", dict)()
    function = told.get("function")
    if not isinstance(function, Mapping) or not function.get("name"):
        raise ValueError(
            f"additional_kwargs['tool_calls'] has a {type(call).__name__} that is no tool call in "
            "OpenAI's form"
        )
    return wire_call(told.get("id"), function["name"], function.get("arguments") or "")


def _role(message: ChatMessage) -> str:
    if message.role not in _ROLES:
        raise ValueError(f"Role {message.role.value!r} is not supported by Parrot.")
    return _ROLES[message.role]


def _text(message: ChatMessage) -> str:
    for block in message.blocks:
        if block.block_type != "text" and block.block_type not in _NOT_TEXT:
            raise ValueError(
                f"{type(block).__name__} is not supported by Parrot: the backend's models read text "
                "only."
            )
    return message.content or ""
