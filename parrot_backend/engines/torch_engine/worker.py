"""The engine's thread: it owns the stepper, and sleeps while there is nothing to do."""

import atexit
import contextlib
import logging
import threading
from collections import abc
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial

from parrot_backend.engines.base import EngineStats
from parrot_backend.engines.torch_engine.schedule.sequence import Sequence
from parrot_backend.engines.torch_engine.schedule.stepper import Deliveries, Stepper
from parrot_backend.wire.errors import (
    EndpointLostError,
    EngineError,
    OverloadedError,
    UnavailableError,
)

logger = logging.getLogger(__name__)

# Weights that are given back are found again in a tenth of a second; nobody notices once a minute.
IDLE_SECONDS = 60.0

Order = tuple[Callable[[], None], Sequence | None]
"""What is to be done, and the sequence that it is about."""


class Worker:
    """Runs a stepper in a thread of its own. All methods can be called from any thread.

    Args:
        stepper: the thread's from now on.
        max_waiting: sequences that may wait; more are refused.
        rest: gives memory back; called when there has been nothing to do for a while.
    """

    def __init__(
        self, stepper: Stepper, max_waiting: int, rest: Callable[[], None] = lambda: None
    ) -> None:
        self._stepper = stepper
        self._rest = rest
        self._max_waiting = max_waiting
        self._stats = stepper.stats
        self._arrived = 0
        self._orders: list[Order] = []
        # Who is to be told an end, whatever becomes of the stepper.
        self._unfinished: set[Sequence] = set()
        self._closing = False
        self._dead: str | None = None
        self._woken = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="parrot-engine", daemon=True)
        self._thread.start()
        # A thread that is inside torch when the interpreter goes down takes the process down hard.
        atexit.register(self.close)

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence.

        Raises:
            OverloadedError: too many wait already.
            UnavailableError: the worker is closed.
            EndpointLostError: its thread has ended by itself.
        """
        with self._woken:
            if self._dead is not None:
                raise EndpointLostError(self._dead)
            if self._closing:
                raise _shutting_down()
            if self.stats.waiting >= self._max_waiting:
                raise OverloadedError(
                    f"{self._max_waiting} generations are waiting already: try again later"
                )
            self._arrived += 1
            self._unfinished.add(sequence)
            self._order(partial(self._stepper.add, sequence), sequence)

    def cancel(self, sequence: Sequence) -> None:
        """End a sequence before the next step; what has ended already is left alone."""
        with self._woken:
            self._unfinished.discard(sequence)
            self._order(partial(self._stepper.cancel, sequence), sequence)

    def expect(self, who: Hashable, tenant: str, tokens: abc.Sequence[int]) -> None:
        """Keep what is cached of `tokens` and compute the rest, until `who` is forgotten."""
        self._order(partial(self._stepper.expect, who, tenant, tokens))

    def unexpect(self, who: Hashable) -> None:
        """Forget that `who` is to come."""
        self._order(partial(self._stepper.unexpect, who))

    @property
    def dead(self) -> str | None:
        """Why its thread has ended by itself; None where it has not."""
        with self._woken:
            return self._dead

    @property
    def slots(self) -> int:
        """Sequences that run at once."""
        return self._stepper.max_batch

    @property
    def stats(self) -> EngineStats:
        """The load and the counts after the last step; what came since waits."""
        with self._woken:
            return replace(self._stats, waiting=self._stats.waiting + self._arrived)

    def close(self) -> None:
        """End everything with `UnavailableError`, and wait for the thread to be gone."""
        with self._woken:
            self._closing = True
            self._woken.notify()
        self._thread.join()
        atexit.unregister(self.close)

    def _order(self, act: Callable[[], None], about: Sequence | None = None) -> None:
        """Have something done in the thread, before its next step."""
        with self._woken:
            if self._dead is None:
                self._orders.append((act, about))
                self._woken.notify()

    def _run(self) -> None:
        try:
            while self._receive():
                # A cancellation wakes it too, and may leave nothing to compute.
                if self._stepper.busy:
                    self._tell(self._step())
            self._tell(self._stepper.fail_all(_shutting_down()))
        except BaseException as error:
            logger.exception("the engine's thread has ended")
            self._die(f"the engine's thread has ended: {error!r}")

    def _receive(self) -> bool:
        """Take in what came, waiting for it where nothing runs; False when it is time to end."""
        failed: Deliveries = []
        with self._woken:
            if not self._woken.wait_for(self._has_to_do, IDLE_SECONDS):
                self._rest()
                self._woken.wait_for(self._has_to_do)
            orders, self._orders, self._arrived = self._orders, [], 0
            for order in orders:
                failed += self._obey(*order)
            self._stats = self._stepper.stats
            closing = self._closing
        self._tell(failed)
        return not closing

    def _has_to_do(self) -> bool:
        return bool(self._orders or self._closing or self._stepper.busy)

    def _obey(self, act: Callable[[], None], about: Sequence | None) -> Deliveries:
        """Do as ordered; a failure is that of the sequence which it is about, and of no other."""
        try:
            act()
        except Exception as error:
            logger.exception("an order failed")
            if about is not None:
                with contextlib.suppress(Exception):  # it may be nowhere yet, or half gone
                    self._stepper.cancel(about)
                return [(about, EngineError(f"the engine failed: {error}"))]
        return []

    def _die(self, reason: str) -> None:
        """Say so to everybody who waits, as nobody else will."""
        with self._woken:
            self._dead, self._orders, self._arrived = reason, [], 0
            unfinished, self._unfinished = self._unfinished, set()
            self._stats = replace(self._stats, running=0, waiting=0)
        for sequence in unfinished:
            with contextlib.suppress(RuntimeError):  # its client's event loop is closed
                sequence.deliver(EndpointLostError(reason))

    def _step(self) -> Deliveries:
        try:
            return self._stepper.step()
        except Exception as error:
            logger.exception("the step failed")
            return self._stepper.fail_all(EngineError(f"the engine's step failed: {error}"))

    def _tell(self, deliveries: Deliveries) -> None:
        """Publish the counts first: who has the last delta sees them without itself."""
        with self._woken:
            self._stats = self._stepper.stats
        for sequence, event in deliveries:
            try:
                sequence.deliver(event)
            except RuntimeError:
                # The client's event loop is closed: nobody waits any more.
                self.cancel(sequence)
        with self._woken:
            self._unfinished.difference_update(s for s, _ in deliveries if s.finished)


def _shutting_down() -> UnavailableError:
    return UnavailableError("the engine is shutting down")
