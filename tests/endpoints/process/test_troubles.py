"""Errors cross as what both sides know of them."""

import pytest

from parrot_backend.endpoints.process.troubles import Trouble
from parrot_backend.wire.errors import (
    ContextLengthError,
    EndpointLostError,
    EngineError,
    NotFoundError,
    ParrotError,
)
from tests.endpoints.process.engines import TooLongError


@pytest.mark.parametrize(
    "error",
    [
        NotFoundError("gone", param="model", code="model_not_found"),
        ContextLengthError("too long"),
        EndpointLostError("lost"),
    ],
)
def test_an_error_is_the_same_again(error: ParrotError) -> None:
    again = Trouble.of(error).error()
    assert type(again) is type(error)
    assert (again.message, again.param, again.code) == (error.message, error.param, error.code)


def test_a_class_that_only_one_side_knows_is_the_nearest_of_both() -> None:
    again = Trouble.of(TooLongError("too long", code="special")).error()
    assert type(again) is ContextLengthError
    assert again.code == "special"


def test_anything_else_is_the_engine_s_failure() -> None:
    again = Trouble.of(ZeroDivisionError("by nothing")).error()
    assert type(again) is EngineError
    assert "ZeroDivisionError('by nothing')" in again.message


def test_a_name_can_raise_nothing_but_errors() -> None:
    assert type(Trouble("ClassVar", "x").error()) is EngineError
    assert type(Trouble("SystemExit", "x").error()) is EngineError


def test_a_message_that_quotes_no_text_is_one() -> None:
    assert Trouble.of(EngineError("is \ud800")).message == "is ?"
