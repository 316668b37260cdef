"""Text and tool calls are told apart however the answer is cut into pieces."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.endpoints.tool_calls import assembled, reader_of
from parrot_backend.engines.base import Delta, FinishReason
from parrot_backend.wire.tools import ToolCall
from tests.programs import request
from tests.tools import NOW, WEATHER, written

LIMA = written("get_weather", city="Lima }\n", note="</tool_call> <tool_call>\n", deep={"a": {}})
TIME = written("now")


def read(
    pieces: list[str], reason: FinishReason = "stop", choice: str = "auto"
) -> tuple[str, list[ToolCall], str | None]:
    """Text, calls and finish reason of an answer that comes in these pieces."""
    reader = reader_of(request("x", tools=[WEATHER, NOW], tool_choice=choice))
    deltas = [reader(Delta(piece, (1,), 0)) for piece in pieces]
    deltas.append(reader(Delta("", (2,), 0, reason)))
    calls = assembled(piece for delta in deltas for piece in delta.tool_calls)
    return "".join(delta.text for delta in deltas), calls, deltas[-1].finish_reason


def called(calls: list[ToolCall]) -> list[tuple[str, object]]:
    return [(call.function.name, json.loads(call.function.arguments)) for call in calls]


@given(cuts=st.lists(st.integers(0, 400)))
def test_the_pieces_do_not_matter(cuts: list[int]) -> None:
    answer = f"I look. <tool\n\n{LIMA}\n{TIME}"
    bounds = [0, *sorted(cuts), len(answer)]
    pieces = [answer[a:b] for a, b in pairwise(bounds)]
    text, calls, reason = read(pieces)
    assert text == "I look. <tool"
    arguments = {"city": "Lima }\n", "note": "</tool_call> <tool_call>\n", "deep": {"a": {}}}
    assert called(calls) == [("get_weather", arguments), ("now", {})]
    assert reason == "tool_calls"
    assert len({call.id for call in calls}) == 2
    assert all(call.id.startswith("call_") for call in calls)


@given(answer=st.text(alphabet="<tol_ca>\n x"))
def test_text_without_a_call_is_given_as_it_is(answer: str) -> None:
    if "<tool_call>" not in answer:
        assert read(list(answer)) == (answer, [], "stop")
        assert read(list(answer), "length") == (answer, [], "length")


def test_text_is_held_back_only_while_it_may_begin_a_call() -> None:
    reader = reader_of(request("x", tools=[NOW]))
    assert [reader(Delta(c, (1,), 0)).text for c in "a <to b"] == [
        "a",
        "",
        "",
        "",
        "",
        " <to",
        " b",
    ]


@given(cuts=st.lists(st.integers(0, 200)))
def test_a_delta_has_one_piece_of_a_call(cuts: list[int]) -> None:
    answer = f"{LIMA}\n{TIME}"
    bounds = [0, *sorted(cuts), len(answer)]
    reader = reader_of(request("x", tools=[WEATHER, NOW]))
    for piece in (answer[a:b] for a, b in pairwise(bounds)):
        indices = [each.index for each in reader(Delta(piece, (1,), 0)).tool_calls]
        assert len(set(indices)) == len(indices)


def test_arguments_come_as_they_are_generated() -> None:
    reader = reader_of(request("x", tools=[WEATHER]))
    pieces = [piece for c in LIMA for piece in reader(Delta(c, (1,), 0)).tool_calls]
    assert (pieces[0].name, pieces[0].arguments) == ("get_weather", "")
    assert all(piece.id is None for piece in pieces[1:])
    assert len(pieces) > 50


@pytest.mark.parametrize(
    ("cut", "text", "arguments"),
    [
        ("<tool_", "", []),
        ('<tool_call>\n{"name": "get_wea', "", []),
        ('<tool_call>\n{"name": "get_weather", "arguments": {"city": "Li', "", ['{"city": "Li']),
        (TIME + "\n<tool_c", "", ["{}"]),
        (LIMA[:-5], "", [json.dumps(json.loads(LIMA[12:-13])["arguments"])]),
    ],
)
def test_a_call_that_is_cut_short_is_there_from_its_name_on(
    cut: str, text: str, arguments: list[str]
) -> None:
    got, calls, reason = read(list(cut), "length", choice="required")
    assert (got, reason) == (text, "length")
    assert [call.function.arguments for call in calls] == arguments


def test_where_no_call_may_come_nothing_is_read_as_one() -> None:
    for parameters in ({}, {"tools": [NOW], "tool_choice": "none"}):
        delta = Delta(TIME, (1,), 0, "stop")
        assert reader_of(request("x", **parameters))(delta) is delta
