"""What makes two requests the same, and what a request may not ask for."""

import pytest
from pydantic import ValidationError

from parrot_backend.program.render import render_call
from parrot_backend.wire.protocol import ChatRequest, SemanticCall
from tests.programs import text

BODY = {"messages": [{"role": "user", "content": "x"}]}


def key(**parameters: object) -> str:
    return ChatRequest.model_validate({**BODY, **parameters}).claim_key()


@pytest.mark.parametrize(
    "neutral",
    [
        {"presence_penalty": 0.0},
        {"logit_bias": {}},
        {"logit_bias": None, "response_format": {"type": "text"}, "tools": [], "n": 1},
    ],
)
def test_values_that_change_nothing_are_the_same_as_none(neutral: dict[str, object]) -> None:
    assert key(**neutral) == key()


@pytest.mark.parametrize(
    "parameter",
    [
        {"min_p": 0.1},
        {"min_p": 0},  # a model's own may be another, as the next one's
        {"repetition_penalty": 1},
        {"frequency_penalty": 0},
        {"repetition_penalty": 1.1},
        {"presence_penalty": 0.5},
        {"frequency_penalty": -0.5},
        {"logit_bias": {"5": 1}},
    ],
)
def test_every_parameter_is_part_of_what_is_claimed(parameter: dict[str, object]) -> None:
    assert key(**parameter) != key()


def test_the_order_of_biases_does_not_matter() -> None:
    assert key(logit_bias={"10": 1, "9": 2}) == key(logit_bias={9: 2, 10: 1})


def test_a_planned_call_has_the_key_of_its_request() -> None:
    parameters = {"min_p": 0.1, "presence_penalty": 0, "logit_bias": {"10": 1, "9": 2}}
    planned = SemanticCall.model_validate(
        {
            "id": "a",
            "messages": [{"role": "user", "content": [s.model_dump() for s in text("x")]}],
            "output": "out",
            **parameters,
        }
    )
    assert render_call(planned, {}).claim_key() == key(**parameters)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["min_p", "presence_penalty", "repetition_penalty", "temperature"])
def test_numbers_that_are_none_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValidationError):
        key(**{name: value})
