"""How much a server takes is learned from what it refuses."""

from itertools import pairwise

import pytest

from parrot_backend.endpoints.upstream import rate_limit
from parrot_backend.endpoints.upstream.rate_limit import RateLimit
from parrot_backend.wire.errors import EndpointLostError


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rate_limit, "time", clock)
    return clock


def test_many_that_are_refused_together_are_one_lesson(clock: Clock) -> None:
    rate = RateLimit(16)
    for _ in range(10):
        rate.refused(10, None)
    assert rate.slots == 0, "none while it wants to be left alone"
    clock.now += 60
    assert rate.slots == 9
    rate.refused(9, None)
    clock.now += 60
    assert rate.slots == 8


def test_there_is_always_a_slot(clock: Clock) -> None:
    rate = RateLimit(2)
    for _ in range(5):
        rate.refused(1, 0.0)
        clock.now += 60
    assert rate.slots == 1


def test_waits_are_what_was_told_or_grow(clock: Clock) -> None:
    rate = RateLimit(16)
    assert rate.refused(4, 7.0) == 7.0
    assert rate.check_wait("there") == 7.0
    assert rate.refused(4, 3.0) == 7.0, "who asked for longer is not asked before"
    rate, waits = RateLimit(16), []
    for _ in range(12):
        waits.append(rate.refused(4, None))
        clock.now += waits[-1]
    assert 0.5 <= waits[0] <= 0.7
    assert all(one < two for one, two in pairwise(waits[:6]))
    assert waits[-1] < 40


def test_what_goes_well_for_a_while_earns_a_slot(clock: Clock) -> None:
    rate = RateLimit(4)
    rate.refused(3, 1.0)
    clock.now += 2
    assert rate.slots == 2
    for _ in range(100):
        rate.answered()
    assert rate.slots == 2, "not at once"
    clock.now += 31
    rate.answered()
    assert rate.slots == 3
    for _ in range(10):
        clock.now += 31
        for _ in range(20):
            rate.answered()
    assert rate.slots == 4, "never more than it takes"


def test_a_wait_that_is_too_long_is_told(clock: Clock) -> None:
    rate = RateLimit(4)
    rate.refused(1, 3600.0)
    with pytest.raises(EndpointLostError, match="left alone for 3600 s") as told:
        rate.check_wait("there")
    assert told.value.retry_after == 3600


def test_nobody_is_asked_again_at_once_whatever_the_server_says(clock: Clock) -> None:
    rate = RateLimit(16)
    for least in 0.5, 1.0, 2.0, 4.0:
        assert rate.refused(4, 0.0) >= least
        clock.now += 60


def test_behind_a_rest_one_is_tried_and_then_all(clock: Clock) -> None:
    changes: list[int] = []
    rate = RateLimit(8, lambda: changes.append(rate.slots))
    rate.rest(60)
    rate.allow(6)  # it is back, perhaps as another one
    rate.answered()  # which had run before
    assert changes == [0]
    with pytest.raises(EndpointLostError, match="left alone for 60 s"):
        rate.check_wait("there")
    clock.now += 61
    assert rate.check_wait("there") == 0
    assert rate.slots == 1
    rate.answered()
    assert changes == [0, 6]
