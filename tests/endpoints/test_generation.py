"""What a request's response format and structured outputs are to the engine."""

import json

import pytest

from parrot_backend.endpoints.generation import grammar_of, sampling_of
from parrot_backend.engines.base import Grammar
from tests.programs import request

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


def test_what_is_not_given_has_openai_s_default() -> None:
    sampling = sampling_of(request("x"))
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (1.0, 1.0, 0)
    assert sampling.logprobs is None
    assert sampling_of(request("x", logprobs=True)).logprobs == 0
    assert sampling_of(request("x", logprobs=True, top_logprobs=4)).logprobs == 4
    assert sampling_of(request("x", top_k=-1)).top_k == 0
