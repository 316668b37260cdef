"""Delays between starts."""

from parrot_backend.endpoints.process.backoff import Backoff


def test_delays_double_up_to_the_most() -> None:
    backoff = Backoff()
    assert [backoff.after(0) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_a_steady_child_is_followed_soon() -> None:
    backoff = Backoff()
    assert [backoff.after(lived) for lived in (0, 59, 60, 0)] == [0.5, 1, 0.5, 1]
