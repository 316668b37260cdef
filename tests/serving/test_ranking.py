"""Who goes first: over pairs of calls, one thing different in each."""

import pytest

from parrot_backend.program.analysis import Deduction
from parrot_backend.serving.call import Call
from parrot_backend.serving.ranking import Ranking, priority
from parrot_backend.wire.protocol import CallScope, Objective


def requested(ranking: Ranking, **scope: object) -> int:
    call = Call("x")
    ranking.rank(call, CallScope(**scope))
    return call.priority


def planned(ranking: Ranking, *deduction: object) -> int:
    call = Call("x")
    ranking.rank_planned(call, Deduction(*deduction))
    return call.priority


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
        found = priority(
            critical=True, batched=False, application=number, path=number, group=number
        )
        assert 0 <= found < 2**63
