"""`RateLimit`: how much an upstream takes at once, learned from how often it says it is too much."""

import random
import time
from collections.abc import Callable

from parrot_backend.wire.errors import EndpointLostError

LONGEST_WAIT = 120.0
MOST_TRIES = 10
"""A job that was refused so often, or waited for so long, is better off elsewhere."""
_FIRST, _MOST = 0.5, 30.0
_CALM_SECONDS = 30.0


class RateLimit:
    """`slots` is what may run at once: one less than what was too much, and slowly more again; none
    while the server may not be asked.

    Args:
        most: slots that there are never more of.
        changed: called after each change of `slots` but the one that only time makes, when `left` is 0.
    """

    def __init__(self, most: int, changed: Callable[[], None] = lambda: None) -> None:
        self._changed = changed
        self._not_before = 0.0
        self._before_rest: int | None = None
        self.allow(most)

    @property
    def slots(self) -> int:
        """What may run at once, now."""
        return 0 if self.left > 0 else self._slots

    @property
    def left(self) -> float:
        """Seconds until it may be asked again."""
        return max(0.0, self._not_before - time.monotonic())

    def allow(self, most: int) -> None:
        """It is another server now, which takes so many; its state tells of that."""
        self._slots = self._most = most
        if self._before_rest is not None:
            self._slots, self._before_rest = 1, most
        self._delay = self._calm_since = 0.0
        self._good = 0

    def refused(self, running: int, seconds: float | None) -> float:
        """It was too much: how long to wait now.

        Many that run together are refused together; that is one lesson and not many. What the server
        asks for counts where it is longer than what we would wait: some say 0, all the time.
        """
        now = time.monotonic()
        if now >= self._not_before:
            self._slots = max(1, min(self._slots, running - 1))
            self._delay = min(max(2 * self._delay, _FIRST), _MOST)
            self._good, self._calm_since = 0, now
        wait = max(seconds or 0.0, self._delay * random.uniform(1.0, 1.25))
        self._not_before = max(self._not_before, now + wait)
        self._changed()
        return self._not_before - now

    def rest(self, seconds: float) -> None:
        """Nothing is taken from us at all, for a reason that takes a while; then one is tried first."""
        self._not_before = max(self._not_before, time.monotonic() + seconds)
        if self._before_rest is None:
            self._before_rest = self._slots
        self._slots = 1
        self._changed()

    def answered(self) -> None:
        """One was taken: when that has gone well for a while, there is a slot more."""
        now = time.monotonic()
        self._good += 1
        if self._before_rest is not None and not self.left:
            self._slots, self._before_rest = self._before_rest, None
            self._changed()
        elif self._slots == self._most:
            self._delay = 0.0
        elif self._good >= 2 * self._slots and now - self._calm_since >= _CALM_SECONDS:
            self._slots += 1
            self._good, self._calm_since = 0, now
            self._changed()

    def check_wait(self, place: str) -> float:
        """Seconds to wait, where it is worth it.

        Raises:
            EndpointLostError: they are too many, or there is little hope.
        """
        seconds = self.left
        if seconds > LONGEST_WAIT or (seconds > 0 and self._before_rest is not None):
            error = EndpointLostError(f"{place} wants to be left alone for {seconds:.0f} s")
            error.retry_after = round(seconds)
            raise error
        return seconds
