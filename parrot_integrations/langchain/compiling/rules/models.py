"""The rule for `ChatParrot`: an LLM step adds a planned call."""

from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.prompt_values import ChatPromptValue, StringPromptValue

from parrot_integrations.client import ParrotClient
from parrot_integrations.langchain.compiling.planner import Planner, StepContext, rule
from parrot_integrations.langchain.models.chat_models import ChatParrot
from parrot_integrations.langchain.models.messages import to_wire
from parrot_integrations.langchain.models.prefetch import obstacle
from parrot_integrations.planning.values import (
    BreakError,
    Prompt,
    PromptMessage,
    Text,
    literal_message,
    need,
)

_PROMPT_VALUES = (ChatPromptValue, StringPromptValue)


@rule(ChatParrot)
def chat_model(planner: Planner, runnable: ChatParrot, value: Any, context: StepContext) -> Any:
    """The call that the model will make, parameters as it will send them."""
    if (reason := obstacle(runnable)) is not None:
        raise BreakError(reason)
    client = _client(planner, runnable, context)
    if isinstance({**runnable.model_kwargs, **context.kwargs}.get("response_format"), type):
        raise BreakError(
            "gets a class as response_format, which can't be asked for its schema yet",
            "Bind it to the model: `llm.bind(response_format=...)`.",
        )
    prompt = _prompt(planner, value)
    parameters = runnable.parameters(**{"stop": None, **context.kwargs})
    answer = planner.plan.call(prompt, parameters, key=context.key, concurrency=context.concurrency)
    planner.plan.client = client
    return answer


def _client(planner: Planner, runnable: ChatParrot, context: StepContext) -> ParrotClient:
    """The client of the whole plan, which the model's own must be equal to."""
    try:
        own = runnable.client_for(context.kwargs)
    except ValueError as error:  # the model itself will say so
        raise BreakError(f"has no client: {error}") from None
    client = planner.plan.client or own
    if client.key != own.key:
        raise BreakError("is served by another backend than the model before it")
    return client


def _prompt(planner: Planner, value: Any) -> Prompt:
    """The model's input as messages, as `BaseChatModel` converts it."""
    if isinstance(value, Prompt):
        return value
    if isinstance(value, Text):
        return Prompt((PromptMessage("user", value),))
    if type(value) is str:
        return Prompt((PromptMessage("user", planner.plan.input("input", value)),))
    messages = value.to_messages() if type(value) in _PROMPT_VALUES else need(value)
    if type(messages) is not list or not all(isinstance(m, BaseMessage) for m in messages):
        raise BreakError(f"gets a {type(value).__name__}, which is not a prompt yet")
    return Prompt(tuple(map(prompt_message, messages)))


def prompt_message(message: BaseMessage) -> PromptMessage:
    """A message that is known whole.

    Raises:
        BreakError: it is of a kind that can't be in a plan.
    """
    try:
        return literal_message(to_wire(message))
    except ValueError as error:
        raise BreakError(str(error)) from None
