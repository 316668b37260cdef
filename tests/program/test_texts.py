"""Shared texts: calls that name them are what they were with each text in its place."""

import pytest

from parrot_backend.program import texts
from parrot_backend.program.graph import Graph
from parrot_backend.program.render import render_beginning, render_call, render_transform
from parrot_backend.program.texts import contents_of
from parrot_backend.wire.errors import InvalidRequestError, PayloadTooLargeError
from parrot_backend.wire.messages import SemanticMessage, SharedSegment
from parrot_backend.wire.protocol import Program, SemanticCall
from parrot_backend.wire.transforms import Transform
from tests.programs import request, text


def sharing(call_id: str, *indices: int) -> SemanticCall:
    content = [*(SharedSegment(index=index) for index in indices), *text(" {x}.")]
    messages = [SemanticMessage(role="user", content=content)]
    return SemanticCall(id=call_id, messages=messages, output=f"{call_id}.out")


def test_they_are_looked_up_where_they_are_named() -> None:
    program = Program(
        variables={"x": "1"},
        texts=["long", "longer"],
        transforms=[Transform(inputs=[[SharedSegment(index=0)], text("{x}")], output="t")],
        calls=[sharing("a", 1, 0, 1)],
    )
    again = Program.model_validate_json(program.model_dump_json())
    assert again == program
    rendered = render_call(again.calls[0], {"x": "1"}, again.texts)
    assert rendered.claim_key() == request("longerlonglonger 1.").claim_key()
    assert render_transform(again.transforms[0], {"x": "1"}, again.texts) == "long1"
    beginning = render_beginning(again.calls[0], {}, "?", again.texts)
    assert beginning.messages[0].content == "longerlonglonger ?"


def test_each_program_has_its_own() -> None:
    graph = Graph()
    graph.add(Program(variables={"x": ""}, texts=["one"], calls=[sharing("a", 0)]))
    graph.add(Program(texts=["two"], calls=[sharing("b", 0)]))
    assert graph.texts == {"a.out": ["one"], "b.out": ["two"]}


@pytest.mark.parametrize(
    ("program", "param"),
    [
        (Program(calls=[sharing("a", 0)]), "calls.0.messages.0.content.0.index"),
        (Program(texts=["a"], calls=[sharing("a", 0, 1)]), "calls.0.messages.0.content.1.index"),
        (
            Program(transforms=[Transform(inputs=[[], [SharedSegment(index=3)]], output="t")]),
            "transforms.0.inputs.1.0.index",
        ),
    ],
)
def test_a_text_that_is_not_there_is_refused_where_it_is_named(
    program: Program, param: str
) -> None:
    with pytest.raises(InvalidRequestError, match="there is no shared text") as caught:
        contents_of(program)
    assert (caught.value.param, caught.value.code) == (param, "text_missing")


def test_what_they_come_to_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(texts=["x" * 100], calls=[sharing("a", 0, 0), sharing("b", 0)])
    monkeypatch.setattr(texts, "MOST_CHARACTERS", 300)
    contents_of(program)
    monkeypatch.setattr(texts, "MOST_CHARACTERS", 299)
    with pytest.raises(PayloadTooLargeError, match="300 characters") as caught:
        contents_of(program)
    assert caught.value.param == "texts"
