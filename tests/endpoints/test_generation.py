"""What a request is to the engine: its response format, and what it and the model say of sampling."""

import json

import pytest

from parrot_backend.endpoints.generation import applied, grammar_of, sampling_of
from parrot_backend.engines.base import Grammar
from parrot_backend.wire.parameters import OPENAI_DEFAULTS, GenerationConfig
from tests.programs import request
from tests.tools import WEATHER

SCHEMA = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "integer"}}}


@pytest.mark.parametrize("schema", [SCHEMA, json.dumps(SCHEMA)])
def test_a_schema_keeps_the_order_of_its_properties(schema: object) -> None:
    grammar = grammar_of(request("x", structured_outputs={"json": schema}))
    assert grammar == Grammar("json_schema", json.dumps(SCHEMA), "structured_outputs")


def test_response_formats() -> None:
    wrapped = {"name": "it", "schema": SCHEMA, "strict": True}
    grammar = grammar_of(
        request("x", response_format={"type": "json_schema", "json_schema": wrapped})
    )
    closed = {**SCHEMA, "additionalProperties": False}
    assert grammar == Grammar("json_schema", json.dumps(closed), "response_format")
    grammar = grammar_of(request("x", response_format={"type": "json_object"}))
    assert grammar is not None
    assert json.loads(grammar.source) == {"type": "object"}
    assert grammar_of(request("x", response_format={"type": "text"})) is None
    assert grammar_of(request("x")) is None


def test_regexes_and_grammars_go_through_as_they_are() -> None:
    assert grammar_of(request("x", structured_outputs={"regex": "a+"})) == Grammar(
        "regex", "a+", "structured_outputs"
    )
    assert grammar_of(request("x", structured_outputs={"grammar": "start: A"})) == Grammar(
        "lark", "start: A", "structured_outputs"
    )


OWN = GenerationConfig(
    temperature=0.2, top_p=0.9, top_k=40, min_p=0.05, repetition_penalty=1.1, max_tokens=512
)


def test_what_nobody_says_has_openai_s_value() -> None:
    sampling = sampling_of(request("x"), OPENAI_DEFAULTS)
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (1.0, 1.0, 0)
    assert sampling.max_tokens is None
    assert sampling.logprobs is None
    assert sampling_of(request("x", logprobs=True), OPENAI_DEFAULTS).logprobs == 0
    assert sampling_of(request("x", logprobs=True, top_logprobs=4), OPENAI_DEFAULTS).logprobs == 4
    assert sampling_of(request("x", top_k=-1), OPENAI_DEFAULTS).top_k == 0


def test_what_a_request_does_not_say_the_model_does() -> None:
    sampling = sampling_of(request("x"), OWN)
    assert applied(request("x"), OWN) == OWN
    for name in GenerationConfig.model_fields:
        assert getattr(sampling, name) == getattr(OWN, name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0),
        ("temperature", 1),
        ("top_p", 1),
        ("top_k", 0),
        ("min_p", 0),
        ("repetition_penalty", 1),
        ("max_tokens", 2000),
    ],
)
def test_what_a_request_says_wins_and_the_rest_stays(name: str, value: float) -> None:
    asked = request("x", **{name: value})
    assert applied(asked, OWN) == OWN.model_copy(update={name: value})
    assert getattr(sampling_of(asked, OWN), name) == value


@pytest.mark.parametrize(
    "structured",
    [
        {"response_format": {"type": "json_object"}},
        {"structured_outputs": {"regex": "a+"}},
        {"tools": [WEATHER]},
    ],
)
def test_what_is_structured_is_penalized_only_where_the_request_says_so(
    structured: dict[str, object],
) -> None:
    """With a penalty, "what is 3 magic" calls the tool with 256: digits of the prompt are penalized."""
    asked = request("x", **structured)
    assert applied(asked, OWN) == OWN.model_copy(update={"repetition_penalty": 1})
    assert (
        applied(request("x", repetition_penalty=1.3, **structured), OWN).repetition_penalty == 1.3
    )


def test_an_answer_that_may_call_no_tool_is_text() -> None:
    assert applied(request("x", tools=[WEATHER], tool_choice="none"), OWN) == OWN


def test_a_greedy_request_is_penalized_as_the_model_says() -> None:
    """As vLLM's are: only top-p, top-k and min-p mean nothing where the best token is taken."""
    sampling = sampling_of(request("x", temperature=0), OWN)
    assert (sampling.temperature, sampling.repetition_penalty) == (0, 1.1)
