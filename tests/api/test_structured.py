"""Structured outputs with the real model, which is far too small to get JSON right by itself."""

import json
import re

import openai
import pytest
from jsonschema import validate
from pydantic import BaseModel, ConfigDict

pytestmark = pytest.mark.model
MODEL = "smollm2-135m-instruct"


class Bird(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    legs: int
    can_fly: bool


SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["grey", "green", "red"]},
        "weight": {"type": "number", "minimum": 0, "maximum": 10, "multipleOf": 0.5},
        "foods": {
            "type": "array",
            "items": {"type": "string", "maxLength": 12},
            "minItems": 1,
            "maxItems": 2,
        },
    },
    "required": ["colour", "weight", "foods"],
    "additionalProperties": False,
}
FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "bird", "schema": SCHEMA, "strict": True},
}


@pytest.fixture
def client(base_url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{base_url}/v1", api_key="none", max_retries=0)


def test_every_choice_follows_the_schema(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Describe a parrot."}],
        response_format=FORMAT,
        temperature=1.5,
        seed=1,
        n=8,
        max_tokens=120,
    )
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        validate(json.loads(choice.message.content), SCHEMA)
    assert answer.usage.prompt_tokens < 60


def test_the_official_client_s_pydantic_models_work(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL,
        messages=[{"role": "user", "content": "Describe a sparrow as JSON."}],
        response_format=Bird,
        temperature=0,
        max_tokens=60,
    )
    assert isinstance(answer.choices[0].message.parsed, Bird)


def test_streamed_answers_are_the_same(client: openai.OpenAI) -> None:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Describe a parrot."}],
        "response_format": FORMAT,
        "temperature": 0,
        "max_tokens": 100,
    }
    whole = client.chat.completions.create(**body).choices[0].message.content
    pieces = [
        c.choices[0].delta.content or ""
        for c in client.chat.completions.create(**body, stream=True)
    ]
    assert "".join(pieces) == whole
    validate(json.loads(whole), SCHEMA)


@pytest.mark.parametrize(
    ("outputs", "pattern"),
    [
        ({"choice": ['it\'s "grey"', "vert, é\n🦜"]}, 'it\'s "grey"|vert, é\n🦜'),
        ({"regex": r"\d{4}-\d{2}-\d{2}"}, r"\d{4}-\d{2}-\d{2}"),
        ({"grammar": 'start: "yes" | "no" ", because " /[a-z ]{5,20}/ "."'}, r"yes|no, .*\."),
        ({"json": {"type": "array", "items": {"type": "integer"}, "maxItems": 3}}, r"\[.*\]"),
    ],
)
def test_vllm_s_structured_outputs(
    client: openai.OpenAI, outputs: dict[str, object], pattern: str
) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Which colour is a parrot?"}],
        extra_body={"structured_outputs": outputs},
        temperature=0,
        max_tokens=40,
    )
    assert answer.choices[0].finish_reason == "stop"
    assert re.fullmatch(pattern, answer.choices[0].message.content)


@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_that_nothing_satisfies_is_a_400(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError, match="Unsatisfiable") as caught:
        client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Hello"}],
            response_format={
                "type": "json_schema",
                "json_schema": {
                    "name": "none",
                    "schema": {"type": "string", "minLength": 2, "maxLength": 1},
                },
            },
            stream=stream,
        )
    assert (caught.value.param, caught.value.code) == ("response_format", "invalid_grammar")


def test_logprobs_of_the_real_model(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        temperature=0,
        max_tokens=12,
        logprobs=True,
        top_logprobs=3,
    )
    (choice,) = answer.choices
    tokens = choice.logprobs.content
    text = b"".join(bytes(token.bytes) for token in tokens).decode()
    assert text == choice.message.content
    for token in tokens:
        assert token.top_logprobs[0].token == token.token
        assert token.top_logprobs[0].logprob == token.logprob <= 0
