"""The rule for `ChatParrot`: an LLM step adds a planned call."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from langchain_core.prompt_values import ChatPromptValue, StringPromptValue

from parrot_integrations.client import ParrotClient
from parrot_integrations.langchain.compiling.planner import Planner, StepContext, rule
from parrot_integrations.langchain.compiling.rules.messages import prompt_messages
from parrot_integrations.langchain.models.chat_models import ChatParrot
from parrot_integrations.langchain.models.prefetch import obstacle
from parrot_integrations.planning.values import (
    BreakError,
    Prompt,
    PromptMessage,
    Text,
    need,
)

_PROMPT_VALUES = (ChatPromptValue, StringPromptValue)


_HARMLESS = {
    *("bind_tools", "with_structured_output", "model_config", "lc_secrets", "lc_attributes"),
    *("is_lc_serializable", "get_lc_namespace", "lc_id", "get_name", "get_token_ids"),
    *("get_num_tokens", "get_num_tokens_from_messages", "served_profile"),
    *("_llm_type", "_identifying_params", "_get_ls_params", "_resolve_model_profile"),
    *("model_post_init", "_abc_impl"),
}
"""What a subclass may make its own without changing a request."""

_LOOKUPS = {"__getattribute__", "__getattr__"}


@rule(ChatParrot, subclasses=True)
def chat_model(planner: Planner, runnable: ChatParrot, value: Any, context: StepContext) -> Any:
    """The call that the model will make, parameters as it will send them."""
    if (method := _overridden(type(runnable))) is not None:
        raise BreakError(
            f"has a {method} of its own, by which its requests may be others",
            "A subclass is planned where it overrides nothing that makes or sends a request.",
        )
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
    return replace(answer, schema=_schema(parameters.get("response_format")))


def _schema(response_format: Any) -> Mapping[str, Any] | None:
    """The schema that the answer follows; one that allows anything for any JSON object."""
    if type(response_format) is not dict:
        return None
    schema = (response_format.get("json_schema") or {}).get("schema")
    return schema if type(schema) is dict else {}


def _overridden(kind: type) -> str | None:
    """What a subclass overrides of that which makes and sends requests; None for nothing.

    Whatever is not known to be harmless counts.
    """
    derived = kind.__mro__[: kind.__mro__.index(ChatParrot)]
    for name in (name for base in derived for name in vars(base)):
        dunder = name.startswith("__") and name.endswith("__")
        own = name in _LOOKUPS if dunder else name not in _HARMLESS
        if own and (name in ChatParrot.model_fields or hasattr(ChatParrot, name)):
            return name
    return None


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
    if type(messages) not in (list, tuple):
        raise BreakError(f"gets a {type(value).__name__}, which is not a prompt yet")
    return Prompt(tuple(prompt_messages(messages)))
