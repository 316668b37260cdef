"""What a graph takes, what it refuses, and that neither depends on how large it is."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.program import texts, transforms
from parrot_backend.program.graph import Graph
from parrot_backend.program.render import render_call, render_transform
from parrot_backend.wire.errors import (
    ConflictError,
    InvalidRequestError,
    ParrotError,
    PayloadTooLargeError,
)
from parrot_backend.wire.messages import SemanticMessage, SharedSegment
from parrot_backend.wire.protocol import Output, Program, SemanticCall
from parrot_backend.wire.transforms import Transform
from tests.programs import call, graph_of, join, request


def test_a_cycle_is_refused_and_named() -> None:
    program = Program(calls=[call("a", "x {c.out}"), call("b", "{a.out}"), call("c", "{b.out}")])
    with pytest.raises(InvalidRequestError, match=r"cycle.*a\.out") as caught:
        graph_of(program)
    assert caught.value.code == "cycle"


def test_a_call_that_reads_its_own_output_is_a_cycle() -> None:
    with pytest.raises(InvalidRequestError, match="cycle"):
        graph_of(Program(calls=[call("a", "{a.out}")]))


@pytest.mark.parametrize(
    ("program", "param"),
    [
        (Program(calls=[call("a", "{nothing}")]), "calls.0"),
        (Program(transforms=[join("j", "", "{nothing}")]), "transforms.0"),
        (Program(outputs=[Output(variable="nothing")]), "outputs.0.variable"),
    ],
)
def test_a_missing_variable_is_refused_where_it_is_read(program: Program, param: str) -> None:
    with pytest.raises(InvalidRequestError, match="'nothing'") as caught:
        graph_of(program)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "program",
    [
        Program(variables={"a.out": "x"}, calls=[call("a", "x")]),
        Program(calls=[call("a", "x"), call("a", "y", output="other")]),
        Program(calls=[call("a", "x", output="o"), call("b", "y", output="o")]),
    ],
)
def test_a_name_is_taken_once(program: Program) -> None:
    with pytest.raises(ConflictError):
        graph_of(program)


def test_a_refused_program_leaves_nothing_behind() -> None:
    graph = graph_of(Program(variables={"x": "1"}))
    with pytest.raises(ParrotError):
        graph.add(Program(variables={"y": "2"}, calls=[call("a", "{nothing}")]))
    graph.add(Program(variables={"y": "2"}, calls=[call("a", "{x}{y}")]))
    assert set(graph.producers) == {"x", "y", "a.out"}


def test_rendering_joins_literals_and_values() -> None:
    values = {"x": "one", "y": "two"}
    rendered = render_call(call("a", "say {x} and {y}!"), values)
    assert rendered.claim_key() == request("say one and two!").claim_key()
    assert render_transform(join("j", "--", "<{x}>", "{y}"), values) == "<one>--two"


class Untouched(dict[str, Any]):
    """A table in which names are looked up and set, and that nobody goes through."""

    def _refuse(self) -> Any:
        raise AssertionError("gone through")

    __iter__ = keys = values = items = copy = _refuse


class UntouchedList(list[Any]):
    """A list that is only added to."""

    def _refuse(self) -> Any:
        raise AssertionError("gone through")

    __iter__ = copy = _refuse


def test_adding_a_program_goes_through_nothing_that_is_there() -> None:
    graph = graph_of(Program(calls=[call("a", "x"), call("b", "{a.out}")]))
    for owner in (graph, graph._contents):
        fields = vars(graph) if owner is graph else dict.fromkeys(owner.__slots__)
        for name in fields:
            table = getattr(owner, name)
            if isinstance(table, dict):
                setattr(owner, name, Untouched(table))
    graph.nodes = UntouchedList(graph.nodes)
    program = Program(
        variables={"x": "1"},
        transforms=[join("j", "", "{b.out}{x}")],
        calls=[call("c", "{j}{a.out}")],
        outputs=[Output(variable="b.out")],
    )
    assert [node.label for node in graph.add(program)] == ["transform 'j'", "call 'c'"]


def test_nodes_come_behind_what_they_read_in_the_order_of_the_program() -> None:
    graph = Graph()
    first = graph.add(
        Program(
            transforms=[join("t", "", "{u}"), join("u", "", "{b.out}")],
            calls=[call("a", "{t}"), call("b", "x"), call("c", "y")],
        )
    )
    assert [node.output for node in first] == ["b.out", "c.out", "u", "t", "a.out"]
    second = graph.add(Program(calls=[call("d", "{c.out}{u}")]))
    assert graph.nodes == [*first, *second]


def test_each_edge_is_there_once() -> None:
    graph = graph_of(Program(variables={"x": None}, calls=[call("a", "{x}{x} and {x}")]))
    assert graph.inputs["a.out"] == ["x"]
    assert [node.label for node in graph.consumers["x"]] == ["call 'a'"]


def state(graph: Graph) -> dict[str, Any]:
    return copy.deepcopy({**vars(graph), "_contents": repr(graph._contents)})


names = st.sampled_from(["x", "y", "a.out", "b.out", "c.out", "j", "nothing"])
templates = st.lists(st.one_of(names.map("{{{}}}".format), st.just("text")), max_size=4)
programs = st.builds(
    lambda variables, joins, calls, outputs, missing: Program(
        variables=dict.fromkeys(variables),
        transforms=[join(output, "", *reads) for output, reads in joins],
        calls=[
            call(call_id, "".join(reads)).model_copy(
                update={"concurrency": ["group"] if missing else []}
            )
            for call_id, reads in calls
        ],
        outputs=[Output(variable=name) for name in outputs],
    ),
    st.sets(st.sampled_from(["x", "y"])),
    st.lists(st.tuples(st.sampled_from(["j", "k"]), templates), max_size=2),
    st.lists(st.tuples(st.sampled_from("abc"), templates), max_size=3),
    st.lists(names, max_size=1),
    st.booleans(),
)


@given(st.lists(programs, min_size=1, max_size=6))
def test_a_program_is_taken_whole_or_not_at_all(added: list[Program]) -> None:
    graph = Graph()
    for program in added:
        before = state(graph)
        try:
            nodes = graph.add(program)
        except ParrotError:
            assert state(graph) == before
        else:
            assert len(nodes) == len(program.transforms) + len(program.calls)
            behind: set[str] = set()
            for node in graph.nodes:
                assert not [
                    n for n in graph.inputs[node.output] if n in graph.inputs.keys() - behind
                ]
                behind.add(node.output)


def test_what_was_checked_is_not_taken_by_a_graph_that_has_grown() -> None:
    graph = Graph()
    checked = graph.check(Program(calls=[call("a", "x")]))
    graph.add(Program(calls=[call("a", "x")]))
    with pytest.raises(ValueError, match="has grown"):
        graph.commit(checked)


def sharing(call_id: str, *indices: int) -> SemanticCall:
    content = [SharedSegment(index=index) for index in indices]
    message = SemanticMessage(role="user", content=content)
    return SemanticCall(id=call_id, messages=[message], output=f"{call_id}.out")


def test_the_segments_of_a_session_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "MOST_SEGMENTS", 5)
    graph = graph_of(Program(variables={"x": ""}, calls=[call("a", "{x}{x}{x}")]))
    with pytest.raises(PayloadTooLargeError, match="more than 5 segments") as caught:
        graph.add(Program(calls=[call("b", "x"), call("c", "{x}{x}")]))
    assert caught.value.param == "calls.1.messages.0.content"
    graph.add(Program(transforms=[join("j", "", "{x}", "{x}")]))
    with pytest.raises(PayloadTooLargeError) as caught:
        graph.add(Program(transforms=[join("k", "", "", "{x}")]))
    assert caught.value.param == "transforms.0.inputs.1"


def test_the_literal_texts_of_a_session_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "MOST_LITERALS", 10)
    graph = graph_of(Program(texts=["1234"], calls=[sharing("a", 0, 0, 0)]))
    graph.add(Program(calls=[call("b", "123456")]))
    with pytest.raises(PayloadTooLargeError, match="more than 10 characters"):
        graph.add(Program(transforms=[join("j", "", "7")]))


@pytest.mark.parametrize(
    ("refused", "param"),
    [
        (lambda: Program(calls=[call("a", "12345{a.out}6")]), "calls.0.messages.0.content"),
        (lambda: Program(texts=["123"], calls=[sharing("a", 0, 0)]), "calls.0.messages.0.content"),
        (
            lambda: Program(transforms=[join("j", "", "", "123456")]),
            "transforms.0.inputs.1",
        ),
    ],
)
def test_a_text_that_is_too_long_whatever_its_variables_are_is_refused(
    monkeypatch: pytest.MonkeyPatch, refused: Callable[[], Program], param: str
) -> None:
    monkeypatch.setattr(transforms, "LONGEST_TEXT", 5)
    with pytest.raises(InvalidRequestError, match="over the limit of 5") as caught:
        graph_of(refused())
    assert (caught.value.param, caught.value.code) == (param, "text_too_long")


def test_what_is_known_of_a_prompt_is_counted() -> None:
    graph = graph_of(
        Program(
            variables={"given": "12345", "later": None},
            texts=["1234567"],
            transforms=[Transform(inputs=[[SharedSegment(index=0)], []], output="t")],
            calls=[call("a", "123{given}{given}{later}{t}")],
        )
    )
    assert graph.characters == {"t": 7, "a.out": 13}
