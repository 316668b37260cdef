"""The engine's thread: it owns the stepper, and sleeps while there is nothing to do."""

import atexit
import logging
import threading
from collections import abc
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial

from parrot_backend.engines.base import EngineStats
from parrot_backend.engines.torch_engine.schedule.sequence import Sequence
from parrot_backend.engines.torch_engine.schedule.stepper import Deliveries, Stepper
from parrot_backend.wire.errors import EngineError, OverloadedError, UnavailableError

logger = logging.getLogger(__name__)


class Worker:
    """Runs a stepper in a thread of its own. All methods can be called from any thread.

    Args:
        stepper: the thread's from now on.
        max_waiting: sequences that may wait; more are refused.
    """

    def __init__(self, stepper: Stepper, max_waiting: int) -> None:
        self._stepper = stepper
        self._max_waiting = max_waiting
        self._stats = stepper.stats
        self._arrived = 0
        self._orders: list[Callable[[], None]] = []
        self._closing = False
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
        """
        with self._woken:
            if self._closing:
                raise _shutting_down()
            if self.stats.waiting >= self._max_waiting:
                raise OverloadedError(
                    f"{self._max_waiting} generations are waiting already: try again later"
                )
            self._arrived += 1
            self._order(partial(self._stepper.add, sequence))

    def cancel(self, sequence: Sequence) -> None:
        """End a sequence before the next step; what has ended already is left alone."""
        self._order(partial(self._stepper.cancel, sequence))

    def expect(self, who: Hashable, tenant: str, tokens: abc.Sequence[int]) -> None:
        """Evict what is cached of `tokens` last, until `who` is forgotten."""
        self._order(partial(self._stepper.memory.expect, who, tenant, tokens))

    def unexpect(self, who: Hashable) -> None:
        """Forget that `who` is to come."""
        self._order(partial(self._stepper.memory.unexpect, who))

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

    def _order(self, order: Callable[[], None]) -> None:
        """Have something done in the thread, before its next step."""
        with self._woken:
            self._orders.append(order)
            self._woken.notify()

    def _run(self) -> None:
        while self._receive():
            # A cancellation wakes it too, and may leave nothing to compute.
            if self._stepper.busy:
                self._tell(self._step())
        self._tell(self._stepper.fail_all(_shutting_down()))

    def _receive(self) -> bool:
        """Take in what came, waiting for it where nothing runs; False when it is time to end."""
        with self._woken:
            self._woken.wait_for(lambda: self._orders or self._closing or self._stepper.busy)
            for order in self._orders:
                order()
            self._orders, self._arrived = [], 0
            self._stats = self._stepper.stats
            return not self._closing

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


def _shutting_down() -> UnavailableError:
    return UnavailableError("the engine is shutting down")
