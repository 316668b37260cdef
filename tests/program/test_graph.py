import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.program.analysis import Deduction, deduce, rewritten
from parrot_backend.program.graph import Graph
from parrot_backend.program.render import render_call, render_transform
from parrot_backend.wire.errors import ConflictError, InvalidRequestError, ParrotError
from parrot_backend.wire.protocol import Objective, Output, Program
from tests.programs import call, join, request


def graph_of(program: Program) -> Graph:
    graph = Graph()
    graph.add(program)
    return graph


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


def test_objectives_are_deduced_from_the_outputs_backward() -> None:
    program = Program(
        calls=[call("a", "1"), call("b", "{a.out}"), call("c", "{b.out}"), call("bulk", "2")],
        outputs=[
            Output(variable="c.out", objective="ttft"),
            Output(variable="bulk.out", objective="throughput"),
        ],
    )
    assert deduce(graph_of(program)) == {
        "a": Deduction("latency", True, 3),
        "b": Deduction("latency", True, 2),
        "c": Deduction("ttft", True, 1),
        "bulk": Deduction("throughput", False, 1),
    }


@pytest.mark.parametrize("objective", ["latency", "throughput", "tpot"])
def test_without_outputs_what_nobody_reads_is_wanted(objective: Objective) -> None:
    graph = graph_of(Program(calls=[call("a", "1"), call("b", "{a.out}")]))
    assert deduce(graph, objective)["b"] == Deduction(objective, objective != "throughput", 1)
    assert deduce(graph, objective)["a"].critical is (objective != "throughput")


def groups(program: Program) -> dict[str, str | None]:
    return {call_id: found.group for call_id, found in deduce(graph_of(program)).items()}


def test_siblings_that_feed_one_consumer_are_a_task_group() -> None:
    program = Program(
        transforms=[join("all", "+", "{a.out}", "{b.out}")],
        calls=[call("a", "1"), call("b", "2"), call("alone", "3"), call("c", "{all}{alone.out}!")],
        outputs=[Output(variable="c.out")],
    )
    assert groups(program) == dict.fromkeys(["a", "b", "alone"], "c.inputs") | {"c": None}
    assert deduce(graph_of(program))["a"] == Deduction("throughput", True, 2, "c.inputs", 3)


def test_a_stage_before_a_task_group_is_one_too() -> None:
    """a1 -> b1 -> c, a2 -> b2 -> c; and x -> y -> z, where nobody has a sibling."""
    pairs = [
        call(f"{stage}{i}", text)
        for i in "12"
        for stage, text in (("a", i), ("b", f"{{a{i}.out}}"))
    ]
    single = [call("x", "9"), call("y", "{x.out}"), call("z", "{y.out}{x.out}")]
    program = Program(calls=[*pairs, *single, call("c", "{b1.out}{b2.out}")])
    assert groups(program) == {
        "a1": "c.inputs.2",
        "a2": "c.inputs.2",
        "b1": "c.inputs",
        "b2": "c.inputs",
        **dict.fromkeys(["c", "x", "y", "z"]),
    }


def test_outputs_that_are_wanted_together_are_a_task_group() -> None:
    program = Program(
        calls=[call("a", "1"), call("b", "2"), call("c", "3")],
        outputs=[
            Output(variable="a.out", group="answers"),
            Output(variable="b.out", group="answers"),
            Output(variable="c.out"),
        ],
    )
    assert groups(program) == {"a": "answers", "b": "answers", "c": None}


@given(st.integers(1, 40), st.data())
def test_the_remaining_path_is_the_longest_one(count: int, data: st.DataObject) -> None:
    """Random acyclic programs, against a brute-force search over all paths."""
    reads = {
        i: data.draw(st.lists(st.integers(0, i - 1), max_size=3, unique=True)) if i else []
        for i in range(count)
    }
    calls = [call(f"c{i}", "x" + "".join(f"{{c{j}.out}}" for j in reads[i])) for i in range(count)]

    def longest(i: int) -> int:
        return longest_of[i]

    longest_of: dict[int, int] = {}
    for i in reversed(range(count)):
        longest_of[i] = 1 + max((longest(k) for k in range(i, count) if i in reads[k]), default=0)
    found = deduce(graph_of(Program(calls=calls)))
    assert {name: d.path for name, d in found.items()} == {
        f"c{i}": longest_of[i] for i in range(count)
    }


def test_a_call_is_likely_to_repeat_the_only_answer_that_it_reads() -> None:
    graph = graph_of(
        Program(
            variables={"text": "abc", "more": None},
            transforms=[
                join("quoted", "", "> {first.out}", "{more}"),
                join("both", ", ", "{first.out}", "{refined.out}"),
                join("given", "", "{text}{more}"),
            ],
            calls=[
                call("first", "{text}"),
                call("refined", "{first.out} with {more}, {given}; again: {first.out}"),
                call("corrected", "{quoted}"),
                call("combined", "{both}"),
                call("compared", "{first.out} or {refined.out}"),
                call("alone", "{given}"),
            ],
        )
    )
    found = {call_id: rewritten(graph, node) for call_id, node in graph.calls.items()}
    assert {call_id: node and node.id for call_id, node in found.items()} == {
        "first": None,
        "refined": "first",
        "corrected": "first",
        "combined": None,
        "compared": None,
        "alone": None,
    }
