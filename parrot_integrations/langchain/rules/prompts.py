"""Rules for prompt templates: literal pieces stay text, each field becomes a Semantic Variable."""

from string import Formatter
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.prompts import (
    AIMessagePromptTemplate,
    BasePromptTemplate,
    ChatPromptTemplate,
    HumanMessagePromptTemplate,
    MessagesPlaceholder,
    PromptTemplate,
    SystemMessagePromptTemplate,
)

from parrot_integrations.langchain.messages import to_wire
from parrot_integrations.langchain.planner import Planner, rule
from parrot_integrations.planning.values import (
    Answer,
    Prompt,
    PromptMessage,
    Text,
    Unknown,
    concat,
    is_symbolic,
    literal_message,
)

_ROLES: dict[type, str] = {
    SystemMessagePromptTemplate: "system",
    HumanMessagePromptTemplate: "user",
    AIMessagePromptTemplate: "assistant",
}
_PLAIN = (str, int, float, bool, type(None))


@rule(PromptTemplate)
def string_template(
    planner: Planner, runnable: PromptTemplate, value: Any, kwargs: dict[str, Any]
) -> Any:
    """One user message, as every chat model takes a string prompt."""
    fields = _fields(planner, runnable, value)
    if isinstance(fields, Unknown):
        return fields
    text = _format(planner, runnable, fields)
    return text if isinstance(text, Unknown) else Prompt((PromptMessage("user", text),))


@rule(ChatPromptTemplate)
def chat_template(
    planner: Planner, runnable: ChatPromptTemplate, value: Any, kwargs: dict[str, Any]
) -> Any:
    """The messages of all its parts."""
    fields = _fields(planner, runnable, value)
    if isinstance(fields, Unknown):
        return fields
    messages: list[PromptMessage] = []
    for part in runnable.messages:
        added = _messages(planner, runnable, part, fields)
        if isinstance(added, Unknown):
            return added
        messages += added
    return Prompt(tuple(messages))


def _fields(
    planner: Planner, template: BasePromptTemplate[Any], value: Any
) -> dict[str, Any] | Unknown:
    """What the template's fields get: its partial variables, and over them the input."""
    if any(callable(partial) for partial in template.partial_variables.values()):
        return planner.stop(template, "has a partial variable that is a function")
    if not isinstance(value, dict):
        if len(template.input_variables) != 1:
            return planner.stop(template, "gets something that is not a dict")
        value = {template.input_variables[0]: value}
    missing = sorted(set(template.input_variables) - set(value))
    if missing:
        return planner.stop(template, f"misses the input {', '.join(missing)}")
    return {**template.partial_variables, **value}


def _messages(
    planner: Planner, template: ChatPromptTemplate, part: Any, fields: dict[str, Any]
) -> list[PromptMessage] | Unknown:
    if isinstance(part, BaseMessage):
        return _static(planner, template, [part])
    if type(part) is MessagesPlaceholder:
        return _placeholder(planner, template, part, fields)
    role = _ROLES.get(type(part))
    if role is None or type(part.prompt) is not PromptTemplate or part.additional_kwargs:
        return planner.stop(template, f"has a {type(part).__name__} that is more than a text")
    text = _format(planner, part.prompt, {**part.prompt.partial_variables, **fields})
    return text if isinstance(text, Unknown) else [PromptMessage(role, text)]  # type: ignore[arg-type]


def _placeholder(
    planner: Planner,
    template: ChatPromptTemplate,
    part: MessagesPlaceholder,
    fields: dict[str, Any],
) -> list[PromptMessage] | Unknown:
    """History from the input, where it is messages already."""
    history = fields.get(part.variable_name, [] if part.optional else None)
    if not isinstance(history, list) or not all(isinstance(m, BaseMessage) for m in history):
        return planner.stop(template, f"'{part.variable_name}' is not a list of messages yet")
    kept = history[-part.n_messages :] if part.n_messages else history
    return _static(planner, template, kept)


def _static(
    planner: Planner, template: ChatPromptTemplate, messages: list[BaseMessage]
) -> list[PromptMessage] | Unknown:
    try:
        wired = [to_wire(message) for message in messages]
    except ValueError as error:
        return planner.stop(template, str(error))
    return [literal_message(wire) for wire in wired]


def _format(planner: Planner, template: PromptTemplate, fields: dict[str, Any]) -> Text | Unknown:
    """The template's pieces in order; only plain `{field}`s are known to be pure."""
    if template.template_format != "f-string":
        return planner.stop(template, f"is a {template.template_format} template")
    texts: list[Text] = []
    for literal, field, spec, conversion in Formatter().parse(template.template):
        texts.append(Text((literal,)))
        if field is None:
            continue
        if spec or conversion:
            return planner.stop(template, f"formats '{field}' with a specification")
        if field not in fields:
            return planner.stop(template, f"misses the input {field}")
        text = _field_text(planner, template, field, fields[field])
        if isinstance(text, Unknown):
            return text
        texts.append(text)
    return concat(texts)


def _field_text(
    planner: Planner, template: PromptTemplate, field: str, value: Any
) -> Text | Unknown:
    if isinstance(value, Unknown | Text):
        return value
    if isinstance(value, Answer):
        return planner.stop(
            template,
            f"puts a whole message, with its metadata, into '{field}'",
            "Put StrOutputParser() behind the model.",
        )
    if is_symbolic(value):
        return planner.stop(
            template,
            f"puts a list or dict of answers into '{field}'",
            "Put join_texts(separator) before it.",
        )
    if not _is_plain(value):
        return planner.stop(template, f"'{field}' is a {type(value).__name__}, not a text")
    return planner.plan.input(field, format(value))


def _is_plain(value: Any) -> bool:
    """Whether turning it into text runs no code of the user's."""
    if type(value) in (list, tuple):
        return all(_is_plain(item) for item in value)
    if type(value) is dict:
        return all(_is_plain(item) for pair in value.items() for item in pair)
    return type(value) in _PLAIN
