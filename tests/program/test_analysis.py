"""What is deduced of calls, of whole graphs and of those that grow."""

import sys
from collections.abc import Callable
from dataclasses import replace
from math import inf
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.program import analysis
from parrot_backend.program.analysis import Analysis, Deduction, deduce, rewritten
from parrot_backend.program.graph import Graph, Node
from parrot_backend.program.site import site_of
from parrot_backend.wire.protocol import Objective, Output, Program, SemanticCall
from parrot_backend.wire.transforms import Transform
from tests.programs import call, graph_of, join


def placed(graph: Graph, objective: Objective = "latency") -> dict[str, Deduction]:
    """What is deduced, but for the work and the sites."""
    found = deduce(graph, objective)
    return {call_id: replace(d, work=0.0, site="") for call_id, d in found.items()}


def test_objectives_are_deduced_from_the_outputs_backward() -> None:
    program = Program(
        calls=[call("a", "1"), call("b", "{a.out}"), call("c", "{b.out}"), call("bulk", "2")],
        outputs=[
            Output(variable="c.out", objective="ttft"),
            Output(variable="bulk.out", objective="throughput"),
        ],
    )
    assert placed(graph_of(program)) == {
        "a": Deduction("latency", True, 3),
        "b": Deduction("latency", True, 2),
        "c": Deduction("ttft", True, 1),
        "bulk": Deduction("throughput", False, 1),
    }


@pytest.mark.parametrize("objective", ["latency", "throughput", "tpot"])
def test_without_outputs_what_nobody_reads_is_wanted(objective: Objective) -> None:
    graph = graph_of(Program(calls=[call("a", "1"), call("b", "{a.out}")]))
    assert placed(graph, objective)["b"] == Deduction(objective, objective != "throughput", 1)
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
    assert placed(graph_of(program))["a"] == Deduction("throughput", True, 2, "c.inputs", 3)


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


def test_work_is_what_the_longest_way_takes_in_tokens_of_answers() -> None:
    """An answer of 100 tokens is expected of the long text, of 10 else; 32 characters are one token."""
    program = Program(
        variables={"given": "x" * 320},
        transforms=[join("both", "", "{a.out}{b.out}")],
        calls=[
            call("a", "x" * 64),
            call("b", "y" * 640),
            call("c", "{both}{given}"),
            call("d", "z" * 32).model_copy(update={"max_tokens": 3}),
        ],
    )
    graph = graph_of(program)
    expected = {graph.sites["a"]: 100.0}
    found = deduce(graph, expected=lambda site, most: min(expected.get(site, 10.0), most or inf))
    assert {call_id: d.work for call_id, d in found.items()} == {
        "a": 100 + 2 + 10 + 10,
        "b": 10 + 20 + 10 + 10,
        "c": 10 + 10,
        "d": 3 + 1,
    }
    assert all(d.site == site_of(graph.calls[call_id]) for call_id, d in found.items())


# Graphs that grow

Step = tuple[
    str, tuple[int, ...], bool
]  # what is added, what of before it reads, whether it is wanted
steps = st.lists(
    st.tuples(
        st.sampled_from(["call", "call", "transform"]),
        st.lists(st.integers(0, 30), max_size=3).map(tuple),
        st.booleans(),
    ),
    min_size=1,
    max_size=25,
)


def program_of(steps: list[Step], first: int, *, named: bool) -> Program:
    """Nodes of the numbers from `first` on; each reads some of those before it, by `v{number}`."""
    program = Program()
    for number, (kind, reads, wanted) in enumerate(steps, first):
        names = [f"{{v{read % number}}}" for read in reads] if number else []
        if kind == "call":
            program.calls.append(call(f"c{number}", "go" + "".join(names), f"v{number}"))
        else:
            program.transforms.append(join(f"v{number}", "", *names))
        if wanted and named:
            objective: Objective = "throughput" if number % 3 else "latency"
            group = "wanted" if number % 2 else None
            program.outputs.append(Output(variable=f"v{number}", objective=objective, group=group))
    return program


programs = st.lists(steps, min_size=1, max_size=5)


@given(programs, st.booleans(), st.sampled_from(["latency", "throughput"]))
def test_a_graph_that_grows_is_analysed_as_if_it_had_been_there(
    added: list[list[Step]], named: bool, objective: Objective
) -> None:
    graph, first = Graph(), 0
    grows = Analysis(graph, objective)
    for steps in added:
        nodes = graph.add(program_of(steps, first, named=named))
        first += len(steps)
        assert grows.extend(nodes) == deduce(graph, objective)


@given(programs, st.data())
def test_what_has_ended_is_left_out(added: list[list[Step]], data: st.DataObject) -> None:
    """The live part of a graph is analysed as if it were the whole."""
    graph, first = Graph(), 0
    grows, live = Analysis(graph), set[str]()

    def lives(node: Node) -> bool:
        return node.output in live

    for steps in added:
        nodes = graph.add(program_of(steps, first, named=False))
        first += len(steps)
        live |= {node.output for node in nodes}
        found = grows.extend(nodes, lives)
        left = list(filter(lives, graph.nodes))
        assert found == Analysis(graph).extend(left)
        paths = {call_id: d.path for call_id, d in deduce(part(graph, left)).items()}
        assert {call_id: d.path for call_id, d in found.items()} == paths
        # What ends has nothing before it that has not: the first ones do.
        live -= {node.output for node in graph.nodes[: data.draw(st.integers(0, first))]}


def part(graph: Graph, nodes: list[Node]) -> Graph:
    """A graph of some nodes of another; what the others write are inputs."""
    return graph_of(
        Program(
            variables=dict.fromkeys(graph.producers.keys() - {node.output for node in nodes}),
            transforms=[node for node in nodes if isinstance(node, Transform)],
            calls=[node for node in nodes if isinstance(node, SemanticCall)],
        )
    )


def test_where_much_waits_new_calls_are_placed_at_once_and_older_ones_by_and_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(analysis, "EXACT_NODES", 4)
    graph = Graph()
    grows = Analysis(graph)
    nodes = graph.add(Program(calls=[call(f"c{i}", f"{i}") for i in range(8)]))
    assert grows.reach(8) == 8
    assert len(grows.extend(nodes)) == 8
    assert [grows.reach(new) for new in (1, 2, 3)] == [1, 2, 11]
    alone = grows.extend(graph.add(Program(calls=[call("d", "{c0.out}{c1.out}")])))
    assert {call_id: d.path for call_id, d in alone.items()} == {"d": 1}
    grows.extend(graph.add(Program(calls=[call("e", "{d.out}")])))
    again = grows.extend(graph.add(Program(calls=[call("f", "{e.out}")])))
    assert again == deduce(graph)
    assert again["c0"].path == 4
    assert again["c0"].group == "d.inputs"


def test_outputs_that_are_named_first_late_place_all_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "EXACT_NODES", 0)
    graph = graph_of(Program(calls=[call(f"c{i}", f"{i}") for i in range(8)]))
    grows = Analysis(graph)
    grows.extend(graph.nodes)
    found = grows.extend(graph.add(Program(outputs=[Output(variable="c0.out")])))
    assert [call_id for call_id, d in found.items() if d.critical] == ["c0"]
    assert found == deduce(graph)


def steps_of(act: Callable[[], Any]) -> int:
    """Python functions that are called meanwhile."""
    count = 0

    def step(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(step)
    try:
        act()
    finally:
        sys.setprofile(None)
    return count


def chain(count: int) -> Program:
    calls = [call("c0", "x")] + [call(f"c{i}", f"{{c{i - 1}.out}}") for i in range(1, count)]
    return Program(calls=calls)


def map_reduce(count: int) -> Program:
    calls = [call(f"c{i}", "x") for i in range(count)]
    return Program(calls=[*calls, call("all", "".join(f"{{c{i}.out}}" for i in range(count)))])


def behind_transforms(count: int) -> Program:
    """Calls that all read the end of a chain of transforms, and calls that its beginning reads."""
    return Program(
        transforms=[join("t0", "", *(f"{{a{i}.out}}" for i in range(count)))]
        + [join(f"t{i}", "", f"{{t{i - 1}}}") for i in range(1, count)],
        calls=[call(f"a{i}", "x") for i in range(count)]
        + [call(f"b{i}", f"{{t{count - 1}}}") for i in range(count)],
    )


SHAPES = pytest.mark.parametrize("shape", [chain, map_reduce, behind_transforms])


@SHAPES
def test_the_work_of_a_program_grows_with_it(shape: Callable[[int], Program]) -> None:
    def whole(count: int) -> int:
        program, graph = shape(count), Graph()

        def act() -> None:
            graph.add(program)
            deduce(graph)
            for planned in graph.calls.values():
                rewritten(graph, planned)

        return steps_of(act)

    assert whole(400) <= 8.5 * whole(50)


@SHAPES
def test_extending_by_one_call_takes_what_is_new(
    shape: Callable[[int], Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice as many extensions take about twice as many steps, however much waits."""
    monkeypatch.setattr(analysis, "EXACT_NODES", 16)
    reads = "{t0}" if shape is behind_transforms else "{c0.out}"
    new = [Program(calls=[call(f"n{i}", f"x{reads}")]) for i in range(400)]

    def one_by_one(count: int) -> int:
        graph = Graph()
        grows = Analysis(graph)
        grows.extend(graph.add(shape(10)))
        return steps_of(lambda: [grows.extend(graph.add(program)) for program in new[:count]])

    few, some, many = (one_by_one(count) for count in (100, 200, 400))
    assert many - some <= 3 * (some - few)


def test_much_that_has_ended_costs_nothing() -> None:
    graph = Graph()
    grows = Analysis(graph)

    def extend(number: int) -> int:
        template = f"{{c{number - 1}.out}}" if number else "x"
        program = Program(calls=[call(f"c{number}", template)])
        last = f"c{number}.out"
        return steps_of(lambda: grows.extend(graph.add(program), lambda n: n.output == last))

    costs = [extend(number) for number in range(600)]
    assert max(costs[2:]) <= 1.1 * min(costs[2:])
