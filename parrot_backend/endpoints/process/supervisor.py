"""Keeps a child running: one that is lost is followed by another."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from parrot_backend.endpoints.base import EndpointState
from parrot_backend.endpoints.process.backoff import Backoff
from parrot_backend.wire.errors import EndpointLostError, ParrotError, UnavailableError

logger = logging.getLogger(__name__)

MAX_FAILED_STARTS = 5
END_SECONDS = 5.0


class Child(Protocol):
    """A process with an engine that is loaded, and our connection to it."""

    async def ended(self) -> str:
        """Look after it until it has ended; says how that came. Cancelled, it kills the process."""
        ...

    def fail(self, failure: Callable[[], ParrotError]) -> None:
        """End all that runs, and all that is asked for later; each has an error of its own."""
        ...

    def terminate(self) -> None:
        """Have the process end in its own way."""
        ...


AChild = TypeVar("AChild", bound=Child)


class Supervisor(Generic[AChild]):
    """Starts children, one at a time, and tells who watches of each change of state.

    Between two children there is a delay (`Backoff`). Where several in a row don't start at all, it has
    failed.

    Args:
        opened: starts a child and waits until its engine is loaded, or raises a `ParrotError` or an
            `OSError`.
        name: what the log calls it.
    """

    def __init__(self, opened: Callable[[], Awaitable[AChild]], name: str = "the engine") -> None:
        self.state: EndpointState = "starting"
        self.connection: AChild | None = None
        self._opened = opened
        self._name = name
        self._watchers: list[Callable[[], None]] = []
        self._keeping: asyncio.Task[None] | None = None
        self._backoff = Backoff()
        self._wanted = True
        self._why = f"{name} has not been started"

    @property
    def why(self) -> str | None:
        """Why there is no child that takes jobs, where one was lost."""
        return None if self.state in ("ready", "draining") else self._why

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` after every change of state."""
        self._watchers.append(changed)

    async def start(self) -> None:
        """Start the first child.

        Raises:
            ParrotError: it can't be; the message is the child's own.
        """
        self.connection = await self._opened()
        self._keeping = asyncio.create_task(self._keep(self.connection), name="keep the engine")
        self._become("ready")

    def ready(self) -> AChild:
        """The child that takes jobs.

        Raises:
            UnavailableError: we are draining or closed.
            EndpointLostError: there is none at the moment, or none any more.
        """
        if not self._wanted:
            raise UnavailableError("the server is shutting down")
        if self.connection is None or self.state != "ready":
            is_state = "has failed" if self.state == "failed" else f"is {self.state}"
            raise EndpointLostError(f"{self._why}; {self._name} {is_state}")
        return self.connection

    def drain(self) -> None:
        """Take no more jobs; those that run go on. A child that is lost now has no successor."""
        self._wanted = False
        if self.state == "ready":
            self._become("draining")
        elif self._keeping is not None:
            self._keeping.cancel()

    async def aclose(self) -> None:
        """End what runs with `UnavailableError`, and the child in its own way, if that is quick."""
        self._wanted = False
        if (connection := self.connection) is not None:
            connection.fail(lambda: UnavailableError("the server is shutting down"))
            connection.terminate()
        if self._keeping is not None:
            await asyncio.wait((self._keeping,), timeout=END_SECONDS if connection else 0)
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        if self.state not in ("dead", "failed"):
            self._become("dead")

    def _become(self, state: EndpointState) -> None:
        self.state = state
        for changed in self._watchers:
            try:
                changed()
            except Exception:  # supervision goes on, whatever else is wrong
                logger.exception("a watcher of the engine's state failed")

    async def _keep(self, connection: AChild | None) -> None:
        """Follow a child by the next, for as long as we are wanted."""
        while connection is not None:
            since = time.monotonic()
            why = await connection.ended()
            if self._wanted:
                logger.warning("%s", why)
            self._lose(connection, why)
            lived = time.monotonic() - since
            connection = await self._restarted(lived) if self._wanted else None

    def _lose(self, connection: AChild, why: str) -> None:
        """The state first: whoever loses a job sees that there is no place for it now."""
        self.connection, self._why = None, why
        self._become("dead")
        connection.fail(lambda: EndpointLostError(why))

    async def _restarted(self, lived: float) -> AChild | None:
        """The next child, or None where it can't be had; `lived` is how long the last one was ready."""
        for _ in range(MAX_FAILED_STARTS):
            await asyncio.sleep(self._backoff.after(lived))
            self._become("starting")
            try:
                self.connection = await self._opened()
            except (ParrotError, OSError) as error:
                lived, self._why = 0.0, f"{self._name} can't be started again: {error}"
                logger.warning("%s", self._why)
                self._become("dead")
            else:
                logger.info("%s is ready again", self._name)
                self._become("ready")
                return self.connection
        logger.error("gave up on %s after %d failed starts", self._name, MAX_FAILED_STARTS)
        self._become("failed")
        return None
