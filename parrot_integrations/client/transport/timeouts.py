"""How long requests wait, in the forms that users of httpx and OpenAI's clients know."""

from typing import Any, NamedTuple, cast

CONNECT_TIMEOUT = 10.0

GivenTimeout = float | tuple[float | None, ...] | Any | None
"""Seconds, (connect, read[, write[, pool]]), an `httpx.Timeout`, or None."""


class Timeouts(NamedTuple):
    """Longest waits in seconds; None for no limit. `read` is the wait for the next byte."""

    connect: float | None
    read: float | None
    write: float | None
    pool: float | None


DEFAULT_TIMEOUTS = Timeouts(CONNECT_TIMEOUT, 600.0, 600.0, None)


def timeouts(given: GivenTimeout) -> Timeouts:
    """What a `timeout` means, in the form that can be compared, kept and sent.

    Args:
        given: seconds, for the next byte of an answer, and None for as long as it takes; connecting
            ends after 10 seconds in both cases. A tuple and an `httpx.Timeout` mean what they mean
            to httpx.

    Raises:
        ValueError: it is none of these, or not more than 0.
    """
    if hasattr(given, "as_dict"):  # httpx's class, or that of a package like it
        waits = cast("Any", given).as_dict()
        given = tuple(waits[name] for name in Timeouts._fields)
    if isinstance(given, list | tuple):
        if not 2 <= len(given) <= 4:
            raise ValueError("timeout as a tuple is (connect, read), with write and pool if wanted")
        return Timeouts(*map(_seconds, (*given, None, None)[:4]))
    read = _seconds(given)
    connect = CONNECT_TIMEOUT if read is None else min(read, CONNECT_TIMEOUT)
    return Timeouts(connect, read, read, None)


def _seconds(wait: Any) -> float | None:
    if wait is None:
        return None
    if isinstance(wait, bool) or not isinstance(wait, int | float):
        raise ValueError(
            f"timeout has a {type(wait).__name__} in it; give seconds, (connect, read), an "
            "httpx.Timeout or None"
        )
    if not wait > 0:
        raise ValueError(f"timeout is {wait}, and must be more than 0 seconds, or None")
    return float(wait)
