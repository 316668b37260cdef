from typing import Any

import pytest

from parrot_backend.program.render import render_transform
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.transforms import (
    Step,
    declared,
    join,
    json_field,
    lower,
    lstrip,
    removeprefix,
    removesuffix,
    replace,
    rstrip,
    semantic_transform,
    split,
    strip,
    template,
    transformed,
    upper,
)
from parrot_integrations.planning.values import (
    Answer,
    BreakError,
    NotYetError,
    Text,
    Unknown,
    Variable,
)

CASES: list[tuple[list[Step], Any, str]] = [
    ([strip()], "  a \n", "a"),
    ([strip("-a")], "-ab-", "b"),
    ([lstrip()], " a ", "a "),
    ([rstrip("b")], "abb", "a"),
    ([lower()], "Ab", "ab"),
    ([upper()], "Ab", "AB"),
    ([replace("a", "-")], "banana", "b-n-n-"),
    ([replace("a", "-", 1)], "banana", "b-nana"),
    ([removeprefix("Answer: ")], "Answer: 4", "4"),
    ([removesuffix("!")], "Yes!", "Yes"),
    ([split()], " a b ", "a"),
    ([split(":", -1)], "a:b:c", "c"),
    ([split(":", 1, 1)], "a:b:c", "b:c"),
    ([template("{{ {text} }}")], "a", "{ a }"),
    ([template("twice {text}{text}")], "a", "twice aa"),
    ([join("-"), strip()], [" a", "b "], "a-b"),
    ([json_field("a", 1, "b")], '{"a": [0, {"b": "c"}]}', "c"),
    ([strip(), json_field("a"), strip(), template("<{text}>")], ' {"a": " b "} ', "<b>"),
]


def by_the_backend(steps: list[Step], value: Any) -> str:
    """The steps on variables, run as the backend runs them."""
    plan, values = Plan(), dict[str, str]()

    def variable(text: str) -> Text:
        values[f"x{len(values)}"] = text
        return Text((Variable(f"x{len(values) - 1}"),))

    symbolic = [variable(t) for t in value] if isinstance(value, list) else variable(value)
    found = transformed(plan, steps, symbolic)
    assert isinstance(found, Text)
    for transform in plan.transforms:
        values[transform.output] = render_transform(transform, values)
    return "".join(values[p.name] if isinstance(p, Variable) else p for p in found.pieces)


@pytest.mark.parametrize(("steps", "value", "expected"), CASES)
def test_steps_do_the_same_at_once_and_in_the_backend(
    steps: list[Step], value: Any, expected: str
) -> None:
    assert transformed(Plan(), steps, value) == expected
    assert by_the_backend(steps, value) == expected


@pytest.mark.parametrize(
    ("steps", "value", "reason"),
    [
        ([strip()], ["a"], "not a planned text"),
        ([join("")], "a", "not a list of planned texts"),
        ([split(":", 1)], "a", "does not fit its declaration"),
        ([json_field("a")], "[1]", "does not fit its declaration"),
        ([json_field("a")], '{"a": 1}', "it is a int, not a string"),
        ([json_field("a")], "[" * 100_000, "does not fit its declaration"),
    ],
)
def test_what_does_not_fit_is_a_break(steps: list[Step], value: Any, reason: str) -> None:
    with pytest.raises(BreakError, match=reason):
        transformed(Plan(), steps, value)


def test_a_message_is_no_text() -> None:
    with pytest.raises(BreakError) as stop:
        transformed(Plan(), [strip()], Answer(Text(("a",))))
    assert "StrOutputParser" in stop.value.remedy
    with pytest.raises(NotYetError):
        transformed(Plan(), [join("")], ["a", Unknown()])


def test_a_declared_function_stays_what_it_is() -> None:
    def shout(text: str) -> str:
        return text.upper()

    assert semantic_transform(strip())(shout) is shout
    assert (declared(shout), shout("a")) == ((strip(),), "A")
    assert declared(print) == declared(object()) == ()


def test_declarations_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one field is \{text\}"):
        template("{other}")
    with pytest.raises(ValueError, match="path"):
        json_field()
    with pytest.raises(ValueError, match="at least one step"):
        semantic_transform()
