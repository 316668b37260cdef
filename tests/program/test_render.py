import pytest
from pydantic import ValidationError

from parrot_backend.program.render import render_transform
from parrot_backend.wire.errors import DependencyError
from parrot_backend.wire.protocol import Transform
from tests.programs import text


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
    transform = Transform(op="json_field", inputs=[text("{x}")], path=[0, "b"], output="y")
    with pytest.raises(DependencyError, match=reason) as failure:
        render_transform(transform, {"x": value})
    assert "transform 'y' finds no json field 0.b" in failure.value.message


@pytest.mark.parametrize(
    "fields",
    [
        {"op": "strip", "inputs": []},
        {"op": "strip", "inputs": [[], []]},
        {"op": "strip", "inputs": [[]], "separator": "-"},
        {"op": "join", "inputs": [], "path": ["a"]},
        {"op": "json_field", "inputs": [[]]},
    ],
)
def test_a_transform_has_what_its_op_needs_and_no_more(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Transform.model_validate({"output": "y", **fields})
