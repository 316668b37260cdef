"""Who waits behind whom; who has left frees those behind it."""

from parrot_backend.serving.placement.waits import Waits
from tests.serving.placement.staged import a_call


def test_those_behind_a_leader_are_free_in_order() -> None:
    waits, leader = Waits(), a_call()
    calls = [a_call() for _ in range(3)]
    for call in calls:
        waits.add(call, "e", leader)
    assert (waits.behind(leader), waits.at("e")) == (3, 3)
    assert waits.free_behind(leader) == calls
    assert len(waits) == 0


def test_of_many_the_first_are_free_and_the_rest_waits_behind_the_first_of_these() -> None:
    """leader <- 1 2 3 4 5    ->    1 and 2 choose, 1 <- 3 4 5"""
    waits, leader = Waits(), a_call()
    calls = [a_call() for _ in range(5)]
    for call in calls:
        waits.add(call, "e", leader)
    assert waits.free_behind(leader, 2) == calls[:2]
    assert waits.behind(calls[0]) == waits.at("e") == 3
    waits.add(calls[1], "e", calls[0])
    assert waits.free_behind(calls[0], 2) == calls[2:4]
    assert waits.behind(calls[2]) == 2
    assert waits.free_behind(calls[2]) == [calls[4], calls[1]]
    assert len(waits) == 0


def test_who_leaves_is_not_freed_and_those_behind_it_stay() -> None:
    waits, leader, call, other = Waits(), a_call(), a_call(), a_call()
    waits.add(call, "e", leader)
    waits.add(other, "e", call)
    waits.remove(call)
    assert waits.free_behind(leader) == []
    assert waits.free_behind(call) == [other]
    assert len(waits) == 0


def test_a_place_and_an_engine() -> None:
    waits, leader = Waits(), a_call()
    behind, place, anywhere = a_call(), a_call(), a_call()
    waits.add(behind, "e", leader)
    waits.add(place, "e")
    waits.add(anywhere, None)
    assert waits.free_at("e") == [place]
    assert waits.free_at(None) == [anywhere]
    assert waits.free_all_at("e") == [behind]
    assert len(waits) == 0
    assert waits.free_at("e") == []


def test_one_that_waits_for_a_place_is_free_of_each_engine_in_turn() -> None:
    waits = Waits()
    one, two, other, behind = a_call(), a_call(), a_call(), a_call()
    waits.add(one, "e")
    waits.add(two, "e")
    waits.add(other, "f")
    waits.add(behind, "f", one)
    assert [waits.free_one() for _ in range(4)] == [[one], [other], [two], []]
    assert waits.free_behind(one) == [behind]
    assert len(waits) == 0


def test_who_is_due_may_choose_and_who_left_is_not() -> None:
    waits, leader = Waits(), a_call()
    late, later, left, never = a_call(), a_call(), a_call(), a_call()
    waits.add(later, "e", leader, 3.0)
    waits.add(late, "e", leader, 2.0)
    waits.add(left, "e", None, 1.0)
    waits.add(never, None)
    waits.remove(left)
    assert waits.overdue(0.5) == []
    assert waits.overdue(2.5) == [late]
    assert waits.next_due == 3.0
    assert waits.behind(leader) == 1
    waits.remove(later)
    waits.remove(never)
    assert waits.next_due is None
    assert len(waits) == 0


def test_what_is_due_is_forgotten_with_the_waits() -> None:
    waits, stays = Waits(), a_call()
    waits.add(stays, "e", None, 1e9)
    for number in range(1000):
        call = a_call()
        waits.add(call, "e", None, 1e6 + number)
        waits.remove(call)
    assert len(waits._dues) < 100
