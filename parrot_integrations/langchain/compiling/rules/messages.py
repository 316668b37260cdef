"""Messages in whatever form LangChain takes them, as `convert_to_messages` makes them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from langchain_core.messages import BaseMessage, convert_to_messages

from parrot_integrations.langchain.compiling.rules.plain import is_plain
from parrot_integrations.langchain.models.messages import to_wire
from parrot_integrations.planning.values import (
    Answer,
    BreakError,
    PromptMessage,
    Text,
    literal_message,
)


def prompt_messages(items: Sequence[Any]) -> list[PromptMessage]:
    """The messages of a list: messages, answers to come, pairs, dicts and texts.

    Raises:
        BreakError: one is of a kind that can't be in a plan.
    """
    return [_prompt_message(item) for item in items]


def prompt_message(message: BaseMessage) -> PromptMessage:
    """A message that is known whole.

    Raises:
        BreakError: it is of a kind that can't be in a plan.
    """
    try:
        return literal_message(to_wire(message))
    except ValueError as error:
        raise BreakError(str(error)) from None


def _prompt_message(item: Any) -> PromptMessage:
    if isinstance(item, PromptMessage):
        return item
    if isinstance(item, Answer):
        return PromptMessage("assistant", item.text)
    if isinstance(item, Text):
        return PromptMessage("user", item)
    if isinstance(item, BaseMessage):
        return prompt_message(item)
    if type(item) in (list, tuple) and len(item) == 2 and isinstance(item[1], Text):
        return replace(_converted((item[0], "")), text=item[1])
    if type(item) is dict and isinstance(item.get("content"), Text):
        return replace(_converted({**item, "content": ""}), text=item["content"])
    return _converted(item)


def _converted(item: Any) -> PromptMessage:
    if type(item) not in (str, list, tuple, dict) or not is_plain(item):
        raise BreakError(f"a {type(item).__name__} is not a message yet")
    try:
        (message,) = convert_to_messages([item])
    except (ValueError, TypeError, LookupError, NotImplementedError) as error:
        raise BreakError(str(error)) from None
    return prompt_message(message)
