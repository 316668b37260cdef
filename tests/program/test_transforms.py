"""Transforms against Python's own methods of `str`."""

import json
from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from parrot_backend.program import transforms
from parrot_backend.program.render import render_transform
from parrot_backend.program.transforms import (
    LONGEST_TEXT,
    JsonReader,
    transformed,
    transformed_length,
)
from parrot_backend.wire.errors import DependencyError, InvalidRequestError
from parrot_backend.wire.messages import VariableSegment
from parrot_backend.wire.transforms import Transform
from tests.programs import join, text

# Few letters, so that what is looked for is often there; some whose case has another length.
TEXTS = st.text(st.sampled_from("aab ,\t\n\u2003ßŉİﬃΐΣ"), max_size=12)
PIECES = TEXTS.filter(bool)
COUNTS = st.one_of(st.integers(-2, 4), st.sampled_from([-(2**31), 2**31 - 1]))


def applied(value: str, **fields: Any) -> str:
    transform = Transform.model_validate({"inputs": [text("{x}")], "output": "y", **fields})
    assert Transform.model_validate(transform.model_dump()) == transform
    return render_transform(transform, {"x": value})


@given(st.sampled_from(["strip", "lstrip", "rstrip"]), TEXTS, st.none() | TEXTS)
def test_stripping_is_python_s(op: str, value: str, characters: str | None) -> None:
    assert applied(value, op=op, characters=characters) == getattr(value, op)(characters)


@given(st.sampled_from(["lower", "upper"]), TEXTS | st.text(max_size=5))
def test_case_is_python_s(op: str, value: str) -> None:
    assert applied(value, op=op) == getattr(value, op)()


@given(TEXTS, TEXTS)
def test_affixes_are_python_s(value: str, affix: str) -> None:
    assert applied(value, op="removeprefix", prefix=affix) == value.removeprefix(affix)
    assert applied(value, op="removesuffix", suffix=affix) == value.removesuffix(affix)


@given(TEXTS, TEXTS, TEXTS, COUNTS)
def test_replacing_is_python_s_and_its_length_is_foreseen(
    value: str, old: str, new: str, count: int
) -> None:
    expected = value.replace(old, new, count)
    assert applied(value, op="replace", old=old, new=new, count=count) == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transforms, "LONGEST_TEXT", max(len(expected), len(value)))
        assert applied(value, op="replace", old=old, new=new, count=count) == expected
        patch.setattr(transforms, "LONGEST_TEXT", max(len(expected), len(value)) - 1)
        with pytest.raises(InvalidRequestError):
            applied(value, op="replace", old=old, new=new, count=count)


@given(TEXTS, st.none() | PIECES, COUNTS, st.integers(-4, 4))
def test_splitting_is_python_s(value: str, separator: str | None, most: int, index: int) -> None:
    fields = {"op": "split", "separator": separator, "maxsplit": most, "index": index}
    try:
        expected = value.split(separator, most)[index]
    except IndexError:
        with pytest.raises(DependencyError, match=r"finds no split.*: there are \d+ pieces"):
            applied(value, **fields)
    else:
        assert applied(value, **fields) == expected


@given(st.none() | TEXTS, st.lists(TEXTS, max_size=5))
def test_joining_is_python_s(separator: str | None, values: list[str]) -> None:
    inputs = [text(f"{{{index}}}") for index in range(len(values))]
    transform = Transform(inputs=inputs, separator=separator, output="y")
    named = {str(index): value for index, value in enumerate(values)}
    assert render_transform(transform, named) == (separator or "").join(values)


@pytest.mark.parametrize(
    "fields",
    [
        {"op": "join", "inputs": [text("{x}")] * 3, "separator": "-" * 2**21},
        {"op": "join", "inputs": [text("{x}{x}")]},
        {"op": "replace", "old": "", "new": "ab"},
        {"op": "upper", "inputs": [text("ŉ{x}")]},
    ],
)
def test_what_would_be_too_long_is_not_built(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="over the limit of 4194304") as caught:
        applied("x" * (2**21 + 1), **fields)
    assert caught.value.code == "text_too_long"


def test_the_other_case_of_ascii_is_as_long() -> None:
    assert applied("x" * LONGEST_TEXT, op="upper") == "X" * LONGEST_TEXT


OPS = st.one_of(
    st.fixed_dictionaries({"op": st.sampled_from(["strip", "lower", "upper", "split"])}),
    st.fixed_dictionaries({"op": st.just("removeprefix"), "prefix": TEXTS}),
    st.fixed_dictionaries({"op": st.just("replace"), "old": TEXTS, "new": TEXTS, "count": COUNTS}),
)


@given(OPS, TEXTS)
def test_nothing_is_longer_than_was_told_beforehand(fields: dict[str, Any], value: str) -> None:
    transform = Transform.model_validate({"inputs": [[]], "output": "y", **fields})
    told = transformed_length(transform, [value])
    try:
        written = transformed(transform, [value], most=told)
    except DependencyError:
        assert transform.op == "split"
    else:
        assert len(written) <= told
        if transform.op == "replace":
            assert told == max(len(written), len(value))


@given(st.lists(TEXTS, max_size=4), TEXTS)
def test_the_length_of_what_is_joined_is_told_beforehand(values: list[str], separator: str) -> None:
    transform = Transform(inputs=[[]] * len(values), separator=separator, output="y")
    assert transformed_length(transform, values) == len(transformed(transform, values))


def test_less_may_be_allowed_than_the_longest_text() -> None:
    transform = join("y", "-", "{x}", "{x}")
    assert render_transform(transform, {"x": "12"}, most=5) == "12-12"
    with pytest.raises(
        InvalidRequestError, match="would come to 5 characters, over the limit of 4"
    ):
        render_transform(transform, {"x": "12"}, most=4)


@pytest.mark.parametrize("text", ['{"a": "1", "b": "2"}', "no json", "[" * 100_000])
def test_of_several_fields_the_json_is_parsed_once(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    parsed = []
    parse = json.loads
    monkeypatch.setattr(json, "loads", lambda read: parse(parsed.append(read) or read))
    reader = JsonReader()
    for name in "abab":
        transform = Transform(
            op="json_field", path=[name], inputs=[[VariableSegment(name="x")]], output="y"
        )
        with nullcontext() if text[0] == "{" else pytest.raises(DependencyError):
            value = render_transform(transform, {"x": text}, reader=reader)
            assert value == {"a": "1", "b": "2"}[name]
    assert parsed == [text]


def test_a_reader_reads_what_it_is_given() -> None:
    reader = JsonReader()
    for _ in range(2):
        assert [reader.read(text) for text in ("1", "2", '"a"')] == [1, 2, "a"]
        with pytest.raises(ValueError, match="Expecting"):
            reader.read("")


def test_half_a_character_in_json_is_no_text() -> None:
    with pytest.raises(DependencyError, match="not valid Unicode"):
        applied(r'["x\ud800"]', op="json_field", path=[0])
    assert applied(r'["\ud83d\ude00"]', op="json_field", path=[0]) == "\N{GRINNING FACE}"


def test_no_character_has_a_case_that_is_longer_than_foreseen() -> None:
    characters = [chr(code) for code in range(0x110000)]
    longest = max(len(cased) for c in characters for cased in (c.lower(), c.upper()))
    assert longest <= transforms.LONGEST_CASE


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"op": "join", "separator": ", "}, "join by ', '"),
        ({"op": "join"}, "join by ''"),
        ({"op": "strip"}, "strip"),
        ({"op": "rstrip", "characters": "."}, "rstrip('.')"),
        ({"op": "replace", "old": "a", "new": ""}, "replace('a', '')"),
        ({"op": "replace", "old": "a", "new": "b", "count": 1}, "replace('a', 'b', 1)"),
        ({"op": "split"}, "split[0]"),
        ({"op": "split", "maxsplit": 1, "index": -1}, "split(None, 1)[-1]"),
        ({"op": "json_field", "path": ["a", 0]}, "json field a.0"),
    ],
)
def test_it_is_told_in_words(fields: dict[str, Any], told: str) -> None:
    transform = Transform.model_validate({"inputs": [[]], "output": "y", **fields})
    assert transform.description == told


@pytest.mark.parametrize(
    "fields",
    [
        {"op": "strip", "inputs": []},
        {"op": "strip", "inputs": [[], []]},
        {"op": "strip", "separator": "-"},
        {"op": "join", "path": ["a"]},
        {"op": "join", "index": 1},
        {"op": "json_field"},
        {"op": "replace", "old": "a"},
        {"op": "replace", "new": "a"},
        {"op": "replace", "old": "a", "new": "b", "count": 2**31},
        {"op": "removeprefix", "suffix": "a"},
        {"op": "removesuffix"},
        {"op": "split", "separator": ""},
        {"op": "lower", "characters": "a"},
        {"op": "title"},
    ],
)
def test_a_transform_has_what_its_op_needs_and_no_more(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Transform.model_validate({"inputs": [[]], "output": "y", **fields})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no json", "JSONDecodeError"),
        ("[]", "IndexError"),
        ("3", "TypeError"),
        ('["a"]', "TypeError"),
        ('[{"b": 1}]', "it is a int, not a string"),
        ("[" * 100_000, "RecursionError"),
    ],
)
def test_a_field_that_is_not_there_fails_with_what_was_missed(value: str, reason: str) -> None:
    with pytest.raises(DependencyError, match=reason) as failure:
        applied(value, op="json_field", path=[0, "b"])
    assert "transform 'y' finds no json field 0.b" in failure.value.message
