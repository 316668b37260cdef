"""From chat messages to the prompt's tokens, through the model's own chat template."""

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from parrot_backend.errors import InvalidRequestError
from parrot_backend.protocol import ChatMessage


def encode_chat(tokenizer: Any, messages: Sequence[ChatMessage]) -> list[int]:
    """Tokens of `messages` as the model expects them, generation prompt included.

    Raises:
        InvalidRequestError: the template refuses the messages, or they can't be tokenized.
    """
    conversation = [message.model_dump(exclude_none=True) for message in messages]
    try:
        text = tokenizer.apply_chat_template(
            conversation, add_generation_prompt=True, tokenize=False
        )
    except (TemplateError, TypeError, ValueError, LookupError) as error:
        raise InvalidRequestError(
            f"the model's chat template refuses the messages: {error}", param="messages"
        ) from error
    try:
        tokens: list[int] = tokenizer.encode(text, add_special_tokens=False)
    except (TypeError, UnicodeError) as error:
        raise InvalidRequestError(
            f"the messages are not valid Unicode text: {error}", param="messages"
        ) from error
    return tokens
