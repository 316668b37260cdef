"""How tools, calls and results are written as text: the format of Hermes, Qwen and others.

    <tool_call>
    {"name": "add", "arguments": {"a": 1, "b": 2}}
    </tool_call>

It is the only one that answers are written in. A model whose chat template has another, or none, is
told of this one in its system message, in the words that Qwen's templates have for it.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from parrot_backend.wire.messages import ChatMessage, Role
from parrot_backend.wire.tools import Tool, ToolCall

OPENING = "<tool_call>"
ENDING = "}\n</tool_call>"
SEPARATOR = "\n"

_INTRODUCTION = """\
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within \
<tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


def head_of(name: str) -> str:
    """What stands between the opening of a call and its arguments."""
    return f'\n{{"name": {json.dumps(name)}, "arguments": '


def described(tool: Tool) -> dict[str, Any]:
    """A tool as the model sees it."""
    return tool.model_dump(exclude_none=True, exclude={"function": {"strict"}})


def as_plain_chat(
    messages: Sequence[ChatMessage], tools: Sequence[Tool], carrier: Role = "system"
) -> list[ChatMessage]:
    """The same chat for a template that knows no tools: calls and results are text.

    The tools come first of all, so that chats with the same tools share them as a prefix: in front of
    the first message where `carrier` has written it, else in a message of its own.
    """
    plain = [message for group in _by_results(messages) for message in _plain(group)]
    if not tools:
        return plain
    listed = "\n".join(json.dumps(described(tool), ensure_ascii=False) for tool in tools)
    introduction = _INTRODUCTION.format(tools=listed)
    if plain[0].role != carrier:
        return [ChatMessage(role=carrier, content=introduction), *plain]
    content = f"{introduction}\n\n{plain[0].content}"
    return [plain[0].model_copy(update={"content": content}), *plain[1:]]


def _by_results(messages: Sequence[ChatMessage]) -> Iterator[list[ChatMessage]]:
    for _, group in groupby(messages, key=lambda message: message.role == "tool"):
        yield list(group)


def _plain(group: list[ChatMessage]) -> list[ChatMessage]:
    """The results of one turn are one message: templates often want roles to alternate."""
    if group[0].role != "tool":
        return [_with_calls_as_text(message) for message in group]
    results = (f"<tool_response>\n{message.content}\n</tool_response>" for message in group)
    return [ChatMessage(role="user", content="\n".join(results))]


def _with_calls_as_text(message: ChatMessage) -> ChatMessage:
    if not message.tool_calls:
        return message
    calls = [_written(call) for call in message.tool_calls]
    content = SEPARATOR.join([message.content, *calls] if message.content else calls)
    return ChatMessage(role=message.role, content=content, name=message.name)


def _written(call: ToolCall) -> str:
    arguments = call.function.arguments or "{}"
    return f"{OPENING}{head_of(call.function.name)}{arguments}{ENDING}"
