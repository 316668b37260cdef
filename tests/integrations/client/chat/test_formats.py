from typing import Any

import pytest
from pydantic import BaseModel, create_model

from parrot_integrations.client.chat.formats import class_schema, is_json, partial_json


class Node(BaseModel):
    """A tree."""

    children: list["Node"]


def test_a_schema_that_refers_to_itself_is_kept_whole() -> None:
    schema = class_schema(Node)
    assert schema["name"] == "Node"
    assert schema["schema"]["$defs"]["Node"]["properties"]["children"]["items"] == {
        "$ref": "#/$defs/Node"
    }


def test_a_name_is_no_longer_than_the_wire_takes() -> None:
    assert len(class_schema(create_model("N" * 100))["name"]) == 64


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("nonsense", None),
        ("{", {}),
        ('{"a": "b', {"a": "b"}),
        ('{"a": [1, {"b": 2}', {"a": [1, {"b": 2}]}),
        ('{"a": 1, "b', {"a": 1}),
        ('{"a": 1}', {"a": 1}),
    ],
)
def test_what_there_is_of_a_json_that_grows(text: str, value: Any) -> None:
    assert partial_json(text) == value


def test_json_is_whole_or_not() -> None:
    assert [is_json(text) for text in ('{"a": 1}', '"a"', '{"a"', "")] == [True, True, False, False]
