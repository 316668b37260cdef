"""How fast an engine is, from when its tokens came."""

import pytest

from parrot_backend.serving.placement.speed import Speed


def test_it_begins_with_what_is_assumed() -> None:
    speed = Speed(1000.0, 8)
    assert speed.prefill(1000) == pytest.approx(1.0)
    assert 0 < speed.token(1) < speed.token(8)
    assert not speed.known


def test_it_learns_prompts() -> None:
    speed = Speed(1000.0, 8)
    for _ in range(100):
        speed.prefilled(500, 0.1)
    assert speed.known
    assert speed.prefill(5000) == pytest.approx(1.0, rel=0.15)


def test_it_learns_answers_alone_and_side_by_side() -> None:
    speed = Speed(1000.0, 8)
    for number in range(200):
        running = 1 + number % 8
        speed.decoded(100, 100 * (0.02 + 0.005 * running), running)
    assert speed.token(1) == pytest.approx(0.025, rel=0.1)
    assert speed.token(8) == pytest.approx(0.06, rel=0.1)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_what_tells_nothing_is_not_learned(seconds: float) -> None:
    speed = Speed(1000.0, 8)
    before = (speed.prefill(1), speed.token(3))
    speed.prefilled(500, seconds)
    speed.prefilled(10, 5.0)
    speed.decoded(100, seconds, 1)
    speed.decoded(1, 5.0, 1)
    assert (speed.prefill(1), speed.token(3)) == before


def test_it_is_never_negative_or_nothing() -> None:
    speed = Speed(0.0, 1)
    for number in range(100):
        speed.decoded(10, 10.0 if number % 2 else 0.001, number % 2)
        assert speed.first > 0
        assert speed.each >= 0
