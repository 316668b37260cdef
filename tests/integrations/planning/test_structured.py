"""JSON to come: its texts are fields that the backend reads, and its parts are known with the whole."""

import pytest

from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.structured import JsonValue
from parrot_integrations.planning.values import NotYetError, Text, Variable, known

ANSWER = Text((Variable("answer-1"),))
BIRD = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "count": {"type": "integer"},
        "songs": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name", "count", "songs"],
    "additionalProperties": False,
}


def test_a_text_is_one_transform_however_often_it_is_read() -> None:
    plan = Plan()
    whole = JsonValue(ANSWER, BIRD, "parser")
    texts = [whole.item("name").as_text(plan), whole.item("name").as_text(plan)]
    song = whole.item("songs").item(0).as_text(plan)
    assert [t.path for t in plan.transforms] == [["name"], ["songs", 0]]
    assert texts[0] == texts[1] != song


@pytest.mark.parametrize("path", [(), ("count",), ("songs",), ("other",), ("name", "more")])
def test_what_the_schema_does_not_call_a_text_is_not_yet_known(path: tuple[str, ...]) -> None:
    value = JsonValue(ANSWER, BIRD, "parser")
    for key in path:
        value = value.item(key)
    with pytest.raises(NotYetError):
        value.as_text(Plan())


def test_without_a_schema_whatever_is_taken_from_it_may_be_a_text() -> None:
    plan = Plan()
    JsonValue(ANSWER, {}, "parser").item("a").item(2).as_text(plan)
    assert [t.path for t in plan.transforms] == [["a", 2]]


def test_all_keys_are_known_where_the_schema_is_closed() -> None:
    assert JsonValue(ANSWER, BIRD, "parser").keys() == ("name", "count", "songs")
    for schema in ({}, {**BIRD, "required": ["name"]}, {**BIRD, "additionalProperties": True}):
        assert JsonValue(ANSWER, schema, "parser").keys() is None


def test_parts_are_known_with_the_whole() -> None:
    whole = JsonValue(ANSWER, {}, "parser")
    name, missing, second = whole.item("name"), whole.item("none"), whole.item("songs").item(1)
    heard: list[str] = []
    second.then(lambda: heard.append("second"))
    assert known([name, second]) == [name, second]
    whole.settle({"name": "wren", "songs": ["a", "b"]})
    assert known([name, second]) == ["wren", "b"]
    assert heard == ["second"]
    assert not missing.settled


def test_only_what_is_named_of_an_object_is_read_from_the_json() -> None:
    plan = Plan()
    schema = {"properties": {"Name": {"type": "string"}}}
    bird = JsonValue(ANSWER, schema, "parser", attributes={"name": "Name"})
    bird.attribute("name").as_text(plan)
    assert [t.path for t in plan.transforms] == [["Name"]]
    for read in (lambda: bird.attribute("age"), lambda: bird.item("Name")):
        with pytest.raises(NotYetError):
            read()
    assert bird.keys() is None


def test_nothing_of_the_user_s_is_subscripted() -> None:
    class Loud(dict[str, str]):
        def __getitem__(self, key: str) -> str:
            raise AssertionError("called")

    whole = JsonValue(ANSWER, {}, "parser")
    whole.settle(Loud(a="b"))
    assert not whole.item("a").settled
