"""Rules for prompt templates: literal pieces stay text, each field becomes a Semantic Variable."""

from collections.abc import Mapping
from typing import Any, cast

from langchain_core.messages import BaseMessage
from langchain_core.prompts import (
    AIMessagePromptTemplate,
    BasePromptTemplate,
    ChatMessagePromptTemplate,
    ChatPromptTemplate,
    FewShotChatMessagePromptTemplate,
    FewShotPromptTemplate,
    HumanMessagePromptTemplate,
    MessagesPlaceholder,
    PromptTemplate,
    SystemMessagePromptTemplate,
)

from parrot_backend.wire.messages import Role
from parrot_integrations.langchain.compiling.planner import Planner, StepContext, rule
from parrot_integrations.langchain.compiling.rules.inputs import is_dict
from parrot_integrations.langchain.compiling.rules.messages import prompt_message, prompt_messages
from parrot_integrations.langchain.compiling.rules.templates import fill, literal
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.structured import JsonValue
from parrot_integrations.planning.values import (
    BreakError,
    Prompt,
    PromptMessage,
    Text,
    concat,
    need,
)

Fields = Mapping[str, Any]

_ROLES: dict[type, str] = {
    SystemMessagePromptTemplate: "system",
    HumanMessagePromptTemplate: "user",
    AIMessagePromptTemplate: "assistant",
}


@rule(PromptTemplate)
def string_template(
    planner: Planner, runnable: PromptTemplate, value: Any, context: StepContext
) -> Any:
    """One user message, as every chat model takes a string prompt."""
    fields = _fields(runnable, value)
    text = fill(planner.plan, runnable.template, runnable.template_format, fields)
    return Prompt((PromptMessage("user", text),))


@rule(FewShotPromptTemplate)
def few_shot(
    planner: Planner, runnable: FewShotPromptTemplate, value: Any, context: StepContext
) -> Any:
    """The examples are part of the template, as `FewShotPromptTemplate.format` makes it."""
    fields = _fields(runnable, value)
    examples = [
        literal(string_text(planner.plan, runnable.example_prompt, _constant(example)))
        for example in _fixed_examples(runnable)
    ]
    pieces = [piece for piece in (runnable.prefix, *examples, runnable.suffix) if piece]
    template = runnable.example_separator.join(pieces)
    text = fill(planner.plan, template, runnable.template_format, fields)
    return Prompt((PromptMessage("user", text),))


@rule(ChatPromptTemplate)
def chat_template(
    planner: Planner, runnable: ChatPromptTemplate, value: Any, context: StepContext
) -> Any:
    """The messages of all its parts."""
    return Prompt(tuple(_parts(planner.plan, runnable, _fields(runnable, value))))


@rule(FewShotChatMessagePromptTemplate)
def few_shot_chat(
    planner: Planner, runnable: FewShotChatMessagePromptTemplate, value: Any, context: StepContext
) -> Any:
    """The messages of its examples, where they are fixed."""
    _fields(runnable, value)
    return Prompt(tuple(_examples(planner.plan, runnable)))


def string_text(plan: Plan, prompt: BasePromptTemplate[Any], values: Fields) -> Text:
    """What a string template makes of values.

    Raises:
        BreakError: a value is missing, or is not a text.
    """
    if type(prompt) is not PromptTemplate:
        raise BreakError(f"formats by a {type(prompt).__name__}")
    fields = {**_partials(prompt), **_chosen(prompt, values)}
    return fill(plan, prompt.template, prompt.template_format, fields)


def _fields(template: BasePromptTemplate[Any], value: Any) -> Fields:
    """What the template's fields get: its partial variables, and over them the input."""
    if isinstance(value, JsonValue) and not value.may_be_text:
        value = {name: value.item(name) for name in template.input_variables}
    if not is_dict(value):
        if isinstance(value, dict) or len(template.input_variables) != 1:
            raise BreakError("gets something that is not a dict")
        value = {template.input_variables[0]: value}
    _chosen(template, value)
    return {**_partials(template), **value}


def _partials(template: BasePromptTemplate[Any]) -> Fields:
    if any(callable(partial) for partial in template.partial_variables.values()):
        raise BreakError("has a partial variable that is a function")
    return template.partial_variables


def _chosen(template: BasePromptTemplate[Any], values: Fields) -> dict[str, Any]:
    missing = sorted(set(template.input_variables) - set(values))
    if missing:
        raise BreakError(f"misses the input {', '.join(missing)}")
    return {name: values[name] for name in template.input_variables}


def _parts(plan: Plan, template: ChatPromptTemplate, fields: Fields) -> list[PromptMessage]:
    return [message for part in template.messages for message in _messages(plan, part, fields)]


def _messages(plan: Plan, part: Any, fields: Fields) -> list[PromptMessage]:
    if isinstance(part, BaseMessage):
        return [prompt_message(part)]
    if type(part) is MessagesPlaceholder:
        return _placeholder(part, fields)
    if type(part) is ChatPromptTemplate:
        return _parts(plan, part, {**_partials(part), **fields})
    if type(part) is FewShotChatMessagePromptTemplate:
        return _examples(plan, part)
    return [_message(plan, part, fields)]


def _message(plan: Plan, part: Any, fields: Fields) -> PromptMessage:
    role = part.role if type(part) is ChatMessagePromptTemplate else _ROLES.get(type(part))
    prompts: Any = getattr(part, "prompt", None)
    pieces: list[Any] = prompts if isinstance(prompts, list) else [prompts]
    if role is None or part.additional_kwargs or any(type(p) is not PromptTemplate for p in pieces):
        raise BreakError(f"has a {type(part).__name__} that is more than a text")
    texts = [fill(plan, p.template, p.template_format, {**_partials(p), **fields}) for p in pieces]
    return PromptMessage(cast("Role", role), concat(texts))


def _placeholder(part: MessagesPlaceholder, fields: Fields) -> list[PromptMessage]:
    """History from the input, where it is messages already."""
    history = need(fields.get(part.variable_name, [] if part.optional else None))
    if type(history) is not list:
        raise BreakError(f"'{part.variable_name}' is not a list of messages yet")
    return prompt_messages(history[-part.n_messages :] if part.n_messages else history)


def _fixed_examples(template: Any) -> list[dict[str, Any]]:
    if template.examples is None:
        raise BreakError("selects its examples by code of yours")
    return list(template.examples)


def _examples(plan: Plan, template: FewShotChatMessagePromptTemplate) -> list[PromptMessage]:
    prompt: Any = template.example_prompt
    return [
        message
        for example in _fixed_examples(template)
        for message in _messages(plan, prompt, _constant(_chosen(prompt, example)))
    ]


def _constant(example: Fields) -> dict[str, Any]:
    """An example's values, its texts and numbers as literal pieces of the prompt."""
    return {
        name: Text((format(value),)) if type(value) in (str, int, float) else value
        for name, value in example.items()
    }
