"""How long a text will be is known before it is put together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.program.render import (
    call_length,
    render_call,
    render_text,
    rendered_length,
)
from parrot_backend.wire.messages import (
    SemanticMessage,
    SharedSegment,
    Text,
    TextSegment,
    VariableSegment,
)
from parrot_backend.wire.protocol import SemanticCall
from tests.programs import call

VALUES = {"x": "", "y": "abc", "z": "\N{GRINNING FACE}" * 5}
TEXTS = ["", "shared"]

segments = st.one_of(
    st.text(max_size=5).map(lambda text: TextSegment(text=text)),
    st.sampled_from(list(VALUES)).map(lambda name: VariableSegment(name=name)),
    st.sampled_from([0, 1]).map(lambda index: SharedSegment(index=index)),
)
contents = st.lists(segments, max_size=6)


@given(contents)
def test_the_length_of_a_text(text: Text) -> None:
    assert rendered_length(text, VALUES, TEXTS) == len(render_text(text, VALUES, TEXTS))


@given(st.lists(contents, min_size=1, max_size=3))
def test_the_length_of_a_call(texts: list[Text]) -> None:
    messages = [SemanticMessage(role="user", content=text) for text in texts]
    planned = SemanticCall(id="a", messages=messages, output="o")
    rendered = render_call(planned, VALUES, TEXTS)
    assert call_length(planned, VALUES, TEXTS) == sum(len(m.content) for m in rendered.messages)


def test_nothing_is_put_together_to_tell_it() -> None:
    """Five thousand times a value that is long: a thousand millions of characters."""
    planned = call("a", "{x}" * 5_000)
    assert call_length(planned, {"x": "x" * 200_000}) == 10**9


@pytest.mark.parametrize("parameters", [{}, {"max_tokens": 5, "seed": None}, {"stop": "x"}])
def test_what_is_given_of_the_parameters_is_asked_for(parameters: dict[str, object]) -> None:
    planned = SemanticCall.model_validate({**call("a", "x").model_dump(), **parameters})
    rendered = render_call(planned, {})
    given = {name: value for name, value in parameters.items() if value is not None}
    expected = {"stop": ["x"]} if "stop" in given else given
    assert rendered.model_dump(exclude_none=True, include=set(parameters)) == expected
