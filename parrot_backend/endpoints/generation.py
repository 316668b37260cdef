"""From a request's parameters to the engine's."""

import json
from typing import Any, TypeVar

from parrot_backend.endpoints.json_schema import narrowed
from parrot_backend.endpoints.tool_grammar import may_call, tool_grammar
from parrot_backend.engines.base import Grammar, Sampling
from parrot_backend.engines.tool_format import OPENING
from parrot_backend.wire.parameters import (
    GenerationConfig,
    GenerationParameters,
    JsonObjectFormat,
    ResponseFormat,
    StructuredOutputs,
)
from parrot_backend.wire.tools import ChatParameters

T = TypeVar("T")


def applied(request: GenerationParameters, defaults: GenerationConfig) -> GenerationConfig:
    """How a request is generated: as it says, and where it does not, as the model's defaults say.

    But for their penalties, which only free text has: in JSON, names, numbers and brackets come again
    by need, and where they are penalized, other ones take their place.
    """
    structured = request.response_format or request.structured_outputs or may_call(request)
    kept = {"repetition_penalty": 1.0, "frequency_penalty": 0.0} if structured else {}
    asked = {name: getattr(request, name) for name in GenerationConfig.model_fields}
    said = {name: value for name, value in asked.items() if value is not None}
    return defaults.model_copy(update=kept | said)


def sampling_of(request: GenerationParameters, defaults: GenerationConfig) -> Sampling:
    """The engine's view of a request's parameters; see `applied`."""
    config = applied(request, defaults)
    return Sampling(
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=max(config.top_k, 0),
        min_p=config.min_p,
        presence_penalty=_or(request.presence_penalty, 0.0),
        frequency_penalty=config.frequency_penalty,
        repetition_penalty=config.repetition_penalty,
        logit_bias=_or(request.logit_bias, {}),
        logprobs=_or(request.top_logprobs, 0) if request.logprobs else None,
        grammar=grammar_of(request),
        seed=request.seed,
        max_tokens=config.max_tokens,
        stop=tuple(request.stop or ()),
        no_stop_after=OPENING if may_call(request) else None,
    )


def _or(value: T | None, default: T) -> T:
    return default if value is None else value


def grammar_of(request: GenerationParameters) -> Grammar | None:
    """What the request's answer must match."""
    if request.structured_outputs is not None:
        return _structured(request.structured_outputs)
    schema = None if request.response_format is None else _schema_of(request.response_format)
    if may_call(request) or (isinstance(request, ChatParameters) and request.tools and not schema):
        return tool_grammar(request, schema)
    return None if schema is None else Grammar("json_schema", json.dumps(schema), "response_format")


def _schema_of(response_format: ResponseFormat) -> dict[str, Any]:
    if isinstance(response_format, JsonObjectFormat):
        return {"type": "object"}
    return narrowed(response_format.json_schema.schema_)


def _structured(outputs: StructuredOutputs) -> Grammar:
    param = "structured_outputs"
    if outputs.regex is not None:
        return Grammar("regex", outputs.regex, param)
    if outputs.grammar is not None:
        return Grammar("lark", outputs.grammar, param)
    if outputs.choice is not None:
        # A string of Lark is one of JSON.
        texts = (json.dumps(text, ensure_ascii=False) for text in outputs.choice)
        return Grammar("lark", "start: " + " | ".join(texts), param)
    schema = outputs.json_
    return Grammar("json_schema", schema if isinstance(schema, str) else json.dumps(schema), param)
