"""JSON in pieces: the same values and the same errors as the standard library's, within bounds."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from parrot_backend.api.pieces import Steps
from parrot_backend.api.requests import json_decoder
from parrot_backend.wire.errors import InvalidRequestError, ParrotError, PayloadTooLargeError

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=40,
)


def finish(steps: Steps[Any]) -> tuple[Any, int]:
    """The result of steps, and how many there were."""
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value, count
        count += 1


def outcome(read: Callable[[], Any]) -> str:
    """What reading gives, or why it gives nothing."""
    try:
        return repr(read())
    except json.JSONDecodeError as error:
        return f"the request body is not valid JSON: {error.msg}"
    except InvalidRequestError as error:
        return error.message


@pytest.fixture
def small_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_decoder, "_WINDOW", 32)


@pytest.mark.usefixtures("small_window")
@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
@example({"😀" * 9: ["\\" * 20, '"' * 20, "a😀" * 20]}, True, None)
@example([12345678901234567890, 1.5e300, True, None, False] * 4, False, None)
def test_what_json_reads_is_read_alike(value: Any, escaped: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=escaped, indent=indent)
    assert finish(json_decoder.decode(f" {text}\n"))[0] == json.loads(text)


@pytest.mark.usefixtures("small_window")
@given(VALUES, st.data())
def test_what_json_refuses_is_refused_alike(value: Any, data: st.DataObject) -> None:
    """A character less, or another one somewhere: valid for both, or for neither."""
    text = json.dumps(value)
    at = data.draw(st.integers(0, len(text) - 1))
    text = (
        text[:at]
        + data.draw(st.sampled_from(["", ",", "]", "}", '"', "\\", "x", ":", "\n"]))
        + text[at + 1 :]
    )
    assert outcome(lambda: finish(json_decoder.decode(text))[0]) == outcome(
        lambda: json.loads(text)
    )


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([{"text": "a"}] * 60_000),
        json.dumps({str(i): ["x" * 300] for i in range(9_000)}),
        json.dumps("\n," * 1_000_000),
        json.dumps(list(range(300_000))),
        json.dumps([[["x" * 1000] * 100] * 50]),
    ],
)
def test_what_is_large_comes_in_small_pieces(text: str) -> None:
    value, count = finish(json_decoder.decode(text))
    assert value == json.loads(text)
    assert count > len(text) / 2**17


def test_a_minus_without_a_number_is_no_long_one() -> None:
    with pytest.raises(InvalidRequestError, match="Expecting value"):
        finish(json_decoder.decode(f'[-, "{"x" * 100_000}"]'))


@pytest.mark.parametrize("depth", [129, 200, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("padding", [0, 100_000])
def test_what_is_nested_deep_is_refused(
    depth: int, opening: str, closing: str, padding: int
) -> None:
    text = f'{opening * (depth - 1)}["{" " * padding}"]{closing * (depth - 1)}'
    with pytest.raises(InvalidRequestError, match="nested more than 128 levels") as caught:
        finish(json_decoder.decode(text))
    assert caught.value.code == "nested_too_deep"
    shallow = opening * 127 + f'["{" " * padding}"]' + closing * 127
    assert finish(json_decoder.decode(shallow))[0] == json.loads(shallow)


@pytest.mark.parametrize(
    ("text", "code", "kind"),
    [
        (json.dumps([{}] * 1_000_000), "too_many_values", PayloadTooLargeError),
        (json.dumps([{"a": ","}] * 500_000), "too_many_values", PayloadTooLargeError),
        (json.dumps({str(i): 0 for i in range(10_001)}), "too_many_keys", InvalidRequestError),
        ("{" + ",".join(['"a":0'] * 200_000) + "}", "too_many_keys", InvalidRequestError),
        ("1" * 5000, None, InvalidRequestError),
        ("[" + "1" * 100_000 + "]", None, InvalidRequestError),
    ],
)
def test_what_is_too_much_is_refused(text: str, code: str, kind: type[ParrotError]) -> None:
    with pytest.raises(kind) as caught:
        finish(json_decoder.decode(text))
    assert caught.value.code == code


@pytest.mark.parametrize("leaf", ["1", "[]", '"a"', '{"a": 1}'])
def test_what_is_nested_is_scanned_a_few_times_and_not_once_a_level(
    leaf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaves = ",".join([leaf] * (34_000 // (len(leaf) + 1)))
    text = "[" + ",".join([f"{'[' * 120}{leaves}{']' * 120}"] * 10) + "]"
    scan, in_vain = json_decoder._scan, []

    def counting(window: str, at: int) -> tuple[Any, int]:
        try:
            return scan(window, at)
        except json.JSONDecodeError:
            in_vain.append(len(window) - at)
            raise

    monkeypatch.setattr(json_decoder, "_scan", counting)
    assert finish(json_decoder.decode(text))[0] == json.loads(text)
    assert sum(in_vain) < 3 * len(text)
