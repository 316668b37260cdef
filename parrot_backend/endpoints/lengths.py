"""What is too long for a model is known from its characters, before anybody works on it."""

from parrot_backend.engines.base import ModelCard
from parrot_backend.wire.errors import ContextLengthError
from parrot_backend.wire.text_protocol import LLMRequest, PromptRequest


def check_length(request: LLMRequest, model: ModelCard) -> None:
    """Refuse a prompt of which more than `model` can read is there already, by its characters alone.

    Raises:
        ContextLengthError: it can't fit the context.
    """
    check_characters(characters(request), model)


def check_characters(count: int, model: ModelCard) -> None:
    """As `check_length`, of a prompt with so many characters."""
    longest = model.longest_text
    if longest is not None and count > longest:
        raise ContextLengthError(
            f"the prompt has {count} characters and {model.name!r} has a context of "
            f"{model.context_length} tokens, which have at most {longest}: shorten the prompt"
        )


def characters(request: LLMRequest) -> int:
    """Of the prompt's texts, without what a template adds."""
    if isinstance(request, PromptRequest):
        return len(request.prompt) if isinstance(request.prompt, str) else 0
    calls = (call for message in request.messages for call in message.tool_calls or ())
    contents = sum(len(message.content) for message in request.messages)
    return contents + sum(len(call.function.arguments) for call in calls)
