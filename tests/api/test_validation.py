"""What is prepared part by part is what it would have been in one go, errors included."""

import copy
from typing import Any

import pytest
from pydantic import ValidationError

from parrot_backend.api.requests import validation
from parrot_backend.wire.protocol import ChatRequest, Program, SessionRequest
from parrot_backend.wire.text_protocol import TokenizeRequest
from tests.api.test_json_decoder import finish


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def planned(number: int, segments: int = 2) -> dict[str, Any]:
    content = [*[text("x")] * segments, {"type": "variable", "name": "v"}]
    message = {"role": "user", "content": content}
    return {"id": f"c{number}", "output": f"o{number}", "messages": [message]}


PROGRAM: dict[str, Any] = {
    "variables": {"v": None},
    "texts": ["shared"] * 600,
    "transforms": [
        {"op": "join", "inputs": [[text("a")]] * 700, "output": "joined"},
        {"op": "upper", "inputs": [[text("a")]], "output": "upper"},
    ],
    "calls": [*map(planned, range(300)), planned(300, segments=2000)],
    "outputs": [{"variable": "o1"}],
}
MESSAGES = [{"role": "user", "content": [text("a"), text("b")]}] * 1000


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Program, PROGRAM),
        (SessionRequest, {"program": PROGRAM, "id": "s"}),
        (ChatRequest, {"messages": MESSAGES, "n": 1}),
        (TokenizeRequest, {"messages": MESSAGES}),
    ],
)
def test_valid_parts_make_an_equal_whole(kind: Any, value: dict[str, Any]) -> None:
    prepared = copy.deepcopy(value)
    _, steps = finish(validation.prepare(kind, prepared))
    assert steps > 200
    assert kind.model_validate(prepared) == kind.model_validate(value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"calls": {3: {"id": "no name"}}},
        {"calls": {300: {"messages": []}, 2: {"unknown": 1}}},
        {"transforms": {0: {"op": "upper"}, 1: {"output": None}}},
        {"calls": {5: None}},
        {"variables": {"no name": ""}},
    ],
)
def test_what_is_wrong_has_the_errors_that_it_would_have(wrong: dict[str, Any]) -> None:
    value = copy.deepcopy(PROGRAM)
    for name, parts in wrong.items():
        for key, part in parts.items():
            value[name][key] = {**value[name][key], **part} if isinstance(part, dict) else part
    assert errors(value, prepare=True) == errors(value, prepare=False)


def test_only_so_many_wrong_parts_are_told() -> None:
    """The rest costs time and tells nobody anything."""
    value = {"calls": [{"id": "no name"}] * 10_000}
    told = errors(value, prepare=True)
    assert told[:40] == errors(value, prepare=False)[:40]
    assert len(told) < 100


def errors(value: Any, *, prepare: bool) -> list[Any]:
    value = copy.deepcopy(value)
    if prepare:
        finish(validation.prepare(Program, value))
    with pytest.raises(ValidationError) as caught:
        Program.model_validate(value)
    return caught.value.errors(include_url=False, include_input=False, include_context=False)
