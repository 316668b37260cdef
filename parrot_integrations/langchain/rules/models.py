"""The rule for `ChatParrot`: an LLM step adds a planned call."""

from typing import Any

from langchain_core.globals import get_llm_cache
from langchain_core.messages import BaseMessage
from langchain_core.prompt_values import PromptValue

from parrot_integrations.langchain.chat_models import ChatParrot
from parrot_integrations.langchain.messages import to_wire
from parrot_integrations.langchain.planner import Planner, rule
from parrot_integrations.planning.values import (
    Prompt,
    PromptMessage,
    Text,
    Unknown,
    literal_message,
)


@rule(ChatParrot)
def chat_model(planner: Planner, runnable: ChatParrot, value: Any, kwargs: dict[str, Any]) -> Any:
    """The call that the model will make, parameters as it will send them."""
    if runnable.rate_limiter is not None:
        return planner.stop(runnable, "has a rate limiter, which planned calls would overrun")
    if runnable.cache or (runnable.cache is None and get_llm_cache() is not None):
        return planner.stop(runnable, "has a cache, and a hit must not cost a call")
    prompt = _prompt(planner, runnable, value)
    if isinstance(prompt, Unknown):
        return prompt
    if planner.client is not None and planner.client.key != runnable.client.key:
        return planner.stop(runnable, "is served by another backend than the model before it")
    planner.client = planner.client or runnable.client
    parameters = runnable.parameters(**{"stop": None, **kwargs})
    return planner.plan.call(prompt, parameters, where=runnable.get_name())


def _prompt(planner: Planner, model: ChatParrot, value: Any) -> Prompt | Unknown:
    """The model's input as messages, as `BaseChatModel` converts it."""
    if isinstance(value, Prompt):
        return value
    if isinstance(value, Text):
        return Prompt((PromptMessage("user", value),))
    if type(value) is str:
        return Prompt((PromptMessage("user", planner.plan.input("input", value)),))
    messages = value.to_messages() if isinstance(value, PromptValue) else value
    if not isinstance(messages, list) or not all(isinstance(m, BaseMessage) for m in messages):
        return planner.stop(model, f"gets a {type(value).__name__}, which is not a prompt yet")
    try:
        wired = [to_wire(message) for message in messages]
    except ValueError as error:
        return planner.stop(model, str(error))
    return Prompt(tuple(literal_message(wire) for wire in wired))
