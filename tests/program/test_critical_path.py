"""What the end waited for, and what planning took off it, over times that are written by hand."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from parrot_backend.program.critical_path import (
    critical_path,
    is_ahead,
    saved,
    saved_on,
    waited,
)
from parrot_backend.program.graph import Graph
from parrot_backend.wire.protocol import Program
from parrot_backend.wire.views import CallView
from tests.programs import call, graph_of, join


def ran(call_id: str, dispatched: float, finished: float, asked: float | None) -> CallView:
    """A planned call; `asked` is None where no client came."""
    return CallView(
        id=call_id,
        state="done",
        planned=True,
        claimed=asked is not None,
        queued=dispatched,
        dispatched=dispatched,
        claimed_at=asked,
        finished=finished,
    )


def unplanned(call_id: str, queued: float, finished: float) -> CallView:
    return CallView(
        id=call_id, state="done", planned=False, claimed=False, queued=queued, finished=finished
    )


def ids(path: list[CallView]) -> list[str]:
    return [view.id for view in path]


NOTHING = Graph()


def test_calls_are_read_through_transforms() -> None:
    program = Program(
        calls=[call("a", "x", "A"), call("b", "y", "B"), call("c", "{AB}{B}", "C")],
        transforms=[join("BA", "+", "{AB}"), join("AB", "+", "{A}", "{B}")],
    )
    views = [ran("a", 0, 4, 0), ran("b", 0, 3, 0), ran("c", 4, 5, 4)]
    assert ids(critical_path(views, graph_of(program))) == ["a", "c"]


def test_a_ladder_of_diamonds_is_walked_once() -> None:
    """Each transform reads both of the one before: 2**60 ways lead up, and 60 steps."""
    steps = [
        join(f"{side}{n}", "", f"{{a{n - 1}}}{{b{n - 1}}}") for n in range(1, 60) for side in "ab"
    ]
    calls = [call("first", "x", "a0"), call("second", "y", "b0"), call("last", "{a59}{b59}", "end")]
    views = [ran("first", 0, 2, 0), ran("second", 0, 3, 0), ran("last", 3, 4, 3)]
    graph = graph_of(Program(calls=calls, transforms=steps))
    assert ids(critical_path(views, graph)) == ["second", "last"]


def test_it_goes_through_what_came_last_of_what_was_read() -> None:
    calls = [ran("a", 0, 3, 0), ran("b", 0, 5, 0), ran("c", 5, 7, 5.1)]
    graph = graph_of(Program(calls=[call("a", "1"), call("b", "2"), call("c", "{a.out}{b.out}")]))
    path = critical_path([*calls, unplanned("request/1", 0, 4.9)], graph)
    assert ids(path) == ["b", "c"]
    assert waited(path) == 7


def test_what_reads_nothing_came_behind_what_the_client_had_received_by_then() -> None:
    """Both ran at once, but the client asked for one after the other: there a plan saves most."""
    first, second = ran("a", 0, 1.0, 0.0), ran("b", 0, 0.99, 1.01)
    path = critical_path([first, second], NOTHING)
    assert ids(path) == ["a", "b"]
    assert sum(map(saved, path)) == pytest.approx(0.99)


def test_behind_a_break_it_goes_to_what_was_received_before() -> None:
    calls = [ran("a", 0, 1, 0), ran("b", 0, 2, 0), unplanned("r1", 4, 6), unplanned("r2", 4, 5)]
    assert ids(critical_path(calls, NOTHING)) == ["b", "r1"]
    assert critical_path([], NOTHING) == []
    assert waited([]) == 0


def test_the_end_is_no_call_that_nobody_asked_for() -> None:
    assert ids(critical_path([ran("a", 0, 1, 0), ran("b", 0, 9, None)], NOTHING)) == ["a"]


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [(None, 0.0), (1.0, 0.0), (1.5, 0.5), (3.0, 2.0), (9.0, 2.0)],
    ids=["never", "at its dispatch", "while it ran", "at its end", "later"],
)
def test_saved_is_what_had_passed_of_a_call_when_it_was_asked_for(
    asked: float | None, seconds: float
) -> None:
    assert saved(ran("a", 1.0, 3.0, asked)) == seconds


def test_what_ran_at_the_same_time_is_saved_once() -> None:
    """The client asks for one after the other, and finds each; it might have asked side by side."""
    calls = [ran(f"c{i}", 0, 2, 3 + i) for i in range(20)]
    assert saved_on(critical_path(calls, NOTHING)) == 2


def test_waiting_for_room_is_not_saved() -> None:
    """The call was ready at 0, but got room at 4 only."""
    view = ran("a", 4.0, 6.0, 5.0).model_copy(update={"queued": 0.0})
    assert saved(view) == 1.0


def test_a_dependent_call_is_not_one_that_ran_ahead() -> None:
    early, at_once = ran("a", 0, 1, 0.5), ran("b", 0, 1, 0.001)
    assert [is_ahead(view) for view in (early, at_once)] == [True, False]
    assert not is_ahead(early.model_copy(update={"dependent": True}))


class Counted(CallView):
    """Counts how often anybody looks at when a call ended."""

    looks: ClassVar[int] = 0

    def __getattribute__(self, name: str) -> Any:
        if name == "finished":
            Counted.looks += 1
        return super().__getattribute__(name)


def looks(count: int, seconds: Callable[[int], tuple[float, float, float]], graph: Graph) -> int:
    """How often calls are looked at, per call; all of them are on the path."""
    views = [Counted(**ran(f"c{i}", *seconds(i)).model_dump()) for i in range(count)]
    Counted.looks = 0
    assert len(critical_path(views, graph)) == count
    return Counted.looks // count


def ladder(count: int) -> Graph:
    """Each call reads those before through a transform, which reads the one before and one more."""
    calls = [call("c0", "x")] + [call(f"c{i}", f"{{t{i}}}") for i in range(1, count)]
    transforms = [join("t0", "")] + [
        join(f"t{i}", "", f"{{t{i - 1}}}{{c{i - 1}.out}}") for i in range(1, count)
    ]
    return graph_of(Program(calls=calls, transforms=transforms))


@pytest.mark.parametrize("shape", ["one after another", "at once", "ladder"])
def test_the_work_grows_with_the_calls(shape: str) -> None:
    few, many = 50, 2_000
    seconds = {"at once": lambda i: (0, 1, 2)}.get(shape, lambda i: (i, i + 1, i))
    graphs = (ladder(few), ladder(many)) if shape == "ladder" else (NOTHING, NOTHING)
    assert looks(many, seconds, graphs[1]) <= looks(few, seconds, graphs[0]) + 2
