"""From chat messages to the prompt's tokens, through the model's own chat template."""

import contextlib
import functools
import json
import re
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from parrot_backend.engines.tool_format import OPENING, as_plain_chat, described
from parrot_backend.engines.torch_engine.tokenizer import Tokenizer
from parrot_backend.engines.torch_engine.tokenizing import encode_text
from parrot_backend.wire.errors import InvalidRequestError
from parrot_backend.wire.messages import ChatMessage
from parrot_backend.wire.tools import Function, FunctionCall, Tool, ToolCall

_REFUSALS = (TemplateError, TypeError, ValueError, LookupError)

# A chat with a call of `probe`, and one tool that it does not call.
_PROBE_TOOL = Tool(type="function", function=Function(name="other", description="not called"))
_PROBE = [
    ChatMessage(role="user", content="go"),
    ChatMessage(
        role="assistant",
        tool_calls=[ToolCall(id="call00000", function=FunctionCall(name="probe", arguments="{}"))],
    ),
    ChatMessage(role="tool", tool_call_id="call00000", content="done"),
]
_PROBE_CALL = re.compile(OPENING + r'\s*\{"name": "probe", "arguments": \{\}\}\s*</tool_call>')


class ChatTemplate:
    """The chat template of a model's tokenizer. Callable from any thread.

    A template that writes tool calls as answers have them is given tools, calls and results as they
    are. For any other, and where it refuses some of them, they are text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(
        self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = (), most: int | None = None
    ) -> list[int]:
        """Tokens of `messages` as the model expects them, generation prompt included.

        Raises:
            InvalidRequestError: the template refuses the messages, or they can't be tokenized.
            ContextLengthError: they are long, and have more than `most` tokens.
        """
        try:
            text = self._render(messages, tools)
        except _REFUSALS as error:
            raise InvalidRequestError(
                f"the model's chat template refuses the messages: {error}", param="messages"
            ) from error
        return encode_text(
            self._tokenizer, text, param="messages", add_special_tokens=False, most=most
        )

    def _render(self, messages: Sequence[ChatMessage], tools: Sequence[Tool]) -> str:
        if not tools and not any(m.role == "tool" or m.tool_calls for m in messages):
            return self._apply(messages)
        if self._knows_tools:
            with contextlib.suppress(*_REFUSALS):
                return self._apply(messages, tools)
        with contextlib.suppress(*_REFUSALS):
            return self._apply(as_plain_chat(messages, tools))
        # There are templates without a system message.
        return self._apply(as_plain_chat(messages, tools, carrier="user"))

    def _apply(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> str:
        return self._tokenizer.render(
            [_as_templates_take(message) for message in messages],
            [described(tool) for tool in tools] or None,
        )

    @functools.cached_property
    def _knows_tools(self) -> bool:
        try:
            text = self._apply(_PROBE, [_PROBE_TOOL])
        except _REFUSALS:
            return False
        return _PROBE_TOOL.function.name in text and _PROBE_CALL.search(text) is not None


def _as_templates_take(message: ChatMessage) -> dict[str, Any]:
    """The message with the arguments of its calls as objects, where they are whole."""
    plain = message.model_dump(exclude_none=True)
    for call in plain.get("tool_calls", ()):
        with contextlib.suppress(ValueError):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"] or "{}")
    return plain
