"""Who goes first: over pairs of calls, one thing different in each."""

import pytest

from parrot_backend.program.analysis import Deduction
from parrot_backend.serving.call import Call
from parrot_backend.serving.rank import AGED_PRIORITY, Rank
from parrot_backend.serving.sessions.ranking import Ranking
from parrot_backend.wire.protocol import CallScope, Objective
from tests.serving.dispatch.doubles import Book, a_call


def requested(ranking: Ranking, **scope: object) -> int:
    call = Call("x", Book())
    ranking.rank(call, CallScope(**scope))
    return call.rank.priority


def planned(ranking: Ranking, *deduction: object) -> int:
    call = Call("x", Book())
    ranking.rank_planned(call, Deduction(*deduction))
    return call.rank.priority


@pytest.mark.parametrize("objective", ["latency", "ttft", "tpot"])
def test_who_is_waited_for_goes_before_bulk_however_old(objective: Objective) -> None:
    old, new = Ranking(0), Ranking(10**6)
    assert requested(new, objective=objective) > requested(old, objective="throughput")


def test_a_group_lets_single_calls_pass_but_not_bulk() -> None:
    old, new = Ranking(0), Ranking(1)
    sibling = requested(old, group="g", group_size=2)
    assert requested(new) > sibling > requested(new, objective="throughput")


def test_who_has_no_sibling_yet_is_no_batch() -> None:
    """An agent's turn is a group of one; of a fan-out without a known size the first is early."""
    ranking = Ranking(0)
    assert requested(ranking, group="one") > requested(ranking, group="one")
    assert requested(ranking, group="one") == requested(ranking, group="one")


def test_the_older_application_goes_first_then_the_longer_path_then_the_older_group() -> None:
    old, new = Ranking(3), Ranking(4)
    order = [
        planned(old, "throughput", True, 2, "b.inputs", 5),
        planned(old, "throughput", True, 1, "b.inputs", 5),
        planned(old, "throughput", True, 1, "c.inputs", 5),
        planned(new, "throughput", True, 9, "b.inputs", 5),
    ]
    assert order == sorted(order, reverse=True)
    assert len(set(order)) == len(order)


def test_priorities_fit_a_signed_64_bit_integer_at_any_age() -> None:
    for number in (0, 2**14, 2**40):
        found = Rank(application=number, path=number, group=number).priority
        assert 0 <= found < AGED_PRIORITY < 2**63


def test_a_program_says_how_much_work_is_left_and_from_where_it_comes() -> None:
    call = Call("x", Book())
    Ranking(4).rank_planned(call, Deduction("latency", True, 2, work=70.0, site="s"))
    assert call.rank == Rank(application=4, path=2, work=70.0, site="s")


def test_calls_with_one_instruction_and_one_form_are_of_one_site() -> None:
    def site(prompt: str, system: str = "Summarize.", **parameters: object) -> str:
        call = a_call(prompt, system=system, **parameters)
        Ranking(0).rank(call, CallScope())
        return call.rank.site

    assert site("one") == site("another")
    assert (
        len({site("one"), site("one", "Translate."), site("one", max_tokens=5), site("one", "")})
        == 4
    )


def test_a_single_call_is_as_old_as_what_begins_next_and_no_part_of_it() -> None:
    call = Call("x", Book())
    Ranking(3, single=True).rank(call, CallScope())
    assert (call.rank.application, call.rank.single) == (3, True)


def test_a_named_site_goes_before_what_the_request_tells() -> None:
    def site(system: str, **scope: str) -> str:
        call = a_call("abc", system=system)
        Ranking(0).rank(call, CallScope(**scope))
        return call.rank.site

    assert site("be brief", site="a") == site("be exact", site="a") != site("be brief", site="b")
    assert site("be brief") == site("be brief") != site("be exact")
