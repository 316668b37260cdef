"""Schemas as grammars are made of them: without annotations, and closed where that is safe."""

from typing import Any

import pytest

from parrot_backend.endpoints.json_schema import narrowed

TEXT = {"type": "string"}


def test_objects_are_closed_at_every_level() -> None:
    point = {"type": "object", "properties": {"x": TEXT}}
    closed = {**point, "additionalProperties": False}
    schema = {
        "properties": {
            "one": point,
            "many": {"type": "array", "items": point},
            "some": {"anyOf": [point, {"type": "null"}]},
            "ref": {"$ref": "#/$defs/Point"},
        },
        "$defs": {"Point": point},
    }
    assert narrowed(schema) == {
        "properties": {
            "one": closed,
            "many": {"type": "array", "items": closed},
            "some": {"anyOf": [closed, {"type": "null"}]},
            "ref": {"$ref": "#/$defs/Point"},
        },
        "$defs": {"Point": closed},
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"properties": {"a": TEXT}, "additionalProperties": True},
        {"properties": {"a": TEXT}, "additionalProperties": TEXT},
        {"properties": {"a": TEXT}, "patternProperties": {"^x-": TEXT}},
        {"allOf": [{"properties": {"a": TEXT}}, {"properties": {"b": TEXT}}]},
        {"properties": {"a": TEXT}, "anyOf": [{"properties": {"b": TEXT}}]},
        {"properties": {"a": TEXT}, "$ref": "#/$defs/B", "$defs": {"B": {"properties": {}}}},
    ],
)
def test_what_says_otherwise_or_is_composed_stays_open(schema: dict[str, Any]) -> None:
    assert narrowed(schema) == schema


def test_annotations_go_and_properties_of_their_names_stay() -> None:
    schema = {
        "title": "T",
        "properties": {"title": {**TEXT, "description": "d"}, "default": {"default": 1}},
        "additionalProperties": False,
    }
    assert narrowed(schema) == {
        "properties": {"title": TEXT, "default": {}},
        "additionalProperties": False,
    }
