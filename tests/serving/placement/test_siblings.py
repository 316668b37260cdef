"""Calls that begin alike and come together, by what their engine shares."""

import pytest

from parrot_backend.serving.placement.views import PlacedCall
from tests.serving.placement.staged import Fleet, a_call, engine

S = "s" * 16


def siblings(count: int, shared: str = S, own: str = "") -> list[PlacedCall]:
    return [a_call(shared + f"{n}" + own, answer_tokens=20.0) for n in range(count)]


def test_in_one_batch_they_go_together() -> None:
    fleet = Fleet(engine("one", sharing="batch"))
    assert [fleet.ask(call) for call in siblings(3)] == ["one"] * 3


def test_where_only_what_is_computed_is_shared_one_goes_first() -> None:
    """
    first   [ssssssss0]
    others            .[1]  .[2]   not  [ssssssss1] [ssssssss2]
    """
    fleet = Fleet(engine("one", sharing="computed"))
    first, *others = siblings(3)
    assert [fleet.ask(call) for call in (first, *others)] == ["one", None, None]
    assert fleet.first(first) == others
    assert [fleet.ask(call) for call in others] == ["one", "one"]
    assert fleet.ask(a_call(S + "late")) == "one"


@pytest.mark.parametrize(
    ("leader", "call"),
    [
        ("a", "b"),  # nothing is shared
        ("sa", "s" + "b" * 16),  # little, beside what is its own
        (S + "a" * 60, S + "b"),  # what the leader has of its own is longer than all of the call
    ],
)
def test_where_waiting_does_not_pay_nobody_waits(leader: str, call: str) -> None:
    fleet = Fleet(engine("one", sharing="computed"))
    assert fleet.ask(a_call(leader)) == "one"
    assert fleet.ask(a_call(call)) == "one"


def test_other_tenants_do_not_wait() -> None:
    fleet = Fleet(engine("one", sharing="computed"))
    assert fleet.ask(a_call(S + "a", tenant="a")) == "one"
    assert fleet.ask(a_call(S + "a", tenant="b")) == "one"


@pytest.mark.parametrize("sharing", ["computed", "slot"])
def test_where_the_first_ends_the_next_takes_over(sharing: str) -> None:
    fleet = Fleet(engine("one", 4, sharing=sharing))
    first, second, third = siblings(3)
    assert [fleet.ask(call) for call in (first, second, third)] == ["one", None, None]
    assert fleet.end(first) == [second, third]
    assert fleet.ask(second) == "one"
    assert fleet.ask(third) is None
    assert fleet.end(second) == [third]
    assert fleet.ask(third) == "one"
    fleet.end(third)
    assert len(fleet.placement) == 0


def test_who_waits_may_leave() -> None:
    fleet = Fleet(engine("one", sharing="computed"))
    first, second, third = siblings(3)
    for call in (first, second, third):
        fleet.ask(call)
    assert fleet.end(second) == []
    assert fleet.first(first) == [third]
    for call in (first, third):
        fleet.end(call)
    assert len(fleet.placement) == 0


def test_a_tree_of_prefixes_is_computed_from_its_root() -> None:
    """
    s -+- t -+- a        a first; b and c wait for it, for they find s there, and b finds t, too;
       |     '- b        then b needs nobody, and c neither
       '- u -+- c        c goes, and d waits for c's u
             '- d
    """
    fleet = Fleet(engine("one", sharing="computed"))
    t, u = S + "t" * 16, S + "u" * 16
    a, b, c, d = (a_call(path) for path in (t + "a", t + "b", u + "c", u + "d"))
    assert [fleet.ask(call) for call in (a, b, c, d)] == ["one", None, None, None]
    assert fleet.first(a) == [b, c, d]
    assert [fleet.ask(call) for call in (b, c, d)] == ["one", "one", None]
    assert fleet.first(c) == [d]
    assert fleet.ask(d) == "one"


def test_on_slots_they_take_turns_and_others_take_other_slots() -> None:
    """
    slot 1  [ssss0][ssss1][ssss2]
    slot 2  [other]
    """
    fleet = Fleet(engine("one", 4, sharing="slot"))
    first, second, third = siblings(3, "s" * 46)
    other = a_call("x" * 46)
    assert [fleet.ask(call) for call in (first, second, third, other)] == ["one", None, None, "one"]
    fleet.clock.now = 2.9
    assert fleet.first(first) == [second, third]  # more is known now, but its slot is taken
    assert [fleet.ask(call) for call in (second, third)] == [None, None]
    assert fleet.end(first, 20) == [second, third]
    assert fleet.ask(second) == "one"
    assert fleet.ask(third) is None


def test_on_slots_a_short_beginning_is_computed_again() -> None:
    """To wait for a long answer takes longer than to compute 128 tokens in another slot."""
    fleet = Fleet(engine("one", 4, sharing="slot"))
    assert [fleet.ask(a_call(f"ss{n}", answer_tokens=500.0)) for n in range(3)] == ["one"] * 3


def test_a_long_line_before_a_slot_is_not_asked_anew_at_every_end() -> None:
    fleet = Fleet(engine("one", 64, sharing="slot", tokens_per_second=100.0))
    calls = [a_call("s" * 46 + f"{n:03}", answer_tokens=1.0) for n in range(200)]
    free, asked = calls, 0
    while free or fleet.running:
        asked += len(free)
        for call in free:
            fleet.ask(call)
        running = next(iter(fleet.running))
        for call in fleet.first(running):
            asked += 1
            fleet.ask(call)
        free = fleet.end(running, 1)
    assert not fleet.running
    assert asked < 200 * 40
    assert len(fleet.placement) == 0


def test_who_waits_for_one_that_hangs_goes_elsewhere() -> None:
    """
    one   [ssssssss0 ........ hangs
    two                  [ssssssss1]      twice as long as it should have taken, 1 and 2 choose anew
    """
    fleet = Fleet(engine("one", sharing="computed"), engine("two", sharing="computed"))
    first, second, third = siblings(3)
    home = fleet.ask(first)
    assert fleet.ask(second) is fleet.ask(third) is None
    assert fleet.placement.overdue() == []
    seen = set()
    while not seen:
        due = fleet.placement.next_due
        assert due is not None
        assert fleet.clock.now + due < 60, "nobody waits for ever"
        fleet.clock.now += due
        seen = {fleet.ask(call) for call in fleet.placement.overdue()} - {None}
    assert seen == {"one" if home == "two" else "two"}
    assert fleet.clock.now > 1, "but not as soon as it is late"


def test_alone_nobody_computes_again_what_is_only_slow() -> None:
    fleet = Fleet(engine("one", sharing="computed"))
    first, *others = siblings(3)
    assert [fleet.ask(call) for call in (first, *others)] == ["one", None, None]
    for _ in range(12):
        fleet.clock.now += fleet.placement.next_due or 0.0
        assert [fleet.ask(call) for call in fleet.placement.overdue()] == [None, None]
    assert fleet.clock.now > 1000
    assert fleet.first(first) == others


def test_who_waits_for_a_place_where_nothing_ends_goes_elsewhere() -> None:
    fleet = Fleet(engine("one", 1), engine("two", 1))
    fleet.warm(a_call(S + "a"), "one")
    long = a_call(S + "b")
    fleet.run(long, "one")
    fleet.first(long)
    call = a_call(S + "c")
    assert fleet.ask(call) is None
    for _ in range(8):
        fleet.clock.now += fleet.placement.next_due or 0.0
        if fleet.placement.overdue() and fleet.ask(call) == "two":
            return
    raise AssertionError("it waits for ever")
