"""Which calls are taken to be made alike."""

from typing import Any

import pytest

from parrot_backend.program.site import site_of
from parrot_backend.wire.messages import SemanticMessage, SharedSegment
from parrot_backend.wire.protocol import SemanticCall
from tests.programs import call, text


def with_parameters(**fields: Any) -> SemanticCall:
    return SemanticCall(
        id="a", messages=[SemanticMessage(role="user", content=text("x {v}"))], output="o", **fields
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (call("a", "Sum up {x}."), call("b", "Sum up {y}.", "z")),
        (call("a", "{i}" + "x" * 256), call("b", "{i}" + "y" * 300)),
        (with_parameters(seed=1), with_parameters(seed=2)),
        (with_parameters(temperature=0), with_parameters(temperature=0, top_p=None)),
    ],
)
def test_the_same_site(one: SemanticCall, other: SemanticCall) -> None:
    assert site_of(one) == site_of(other)


def test_each_difference_makes_another_site() -> None:
    system = SemanticMessage(role="system", content=text("x {v}"))
    others = [
        call("a", "Sum up {x}."),
        call("a", "Sum {x}up ."),
        call("a", "x" * 255),
        with_parameters(),
        with_parameters(temperature=0),
        with_parameters(max_tokens=5),
        with_parameters(stop=["5"]),
        with_parameters().model_copy(update={"messages": [system]}),
    ]
    assert len({site_of(other) for other in others}) == len(others)


def test_a_shared_text_is_what_it_says() -> None:
    shared = call("a", "").model_copy(
        update={"messages": [SemanticMessage(role="user", content=[SharedSegment(index=1)])]}
    )
    assert site_of(shared, ["other", "Sum up."]) == site_of(call("a", "Sum up."))
