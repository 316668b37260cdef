"""`Health`: whether an upstream lives. It is asked now and then, and when something looks wrong.

    starting -> ready <-> dead
                  `-> draining

One that does not answer twice in a row is dead; so is one whose connection broke and that does not
answer then. What sends anything at all lives. A dead one is asked again, ever less often, and is ready
when it answers as the same server with the same model.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from parrot_backend.endpoints.base import EndpointState
from parrot_backend.endpoints.process.backoff import Backoff
from parrot_backend.endpoints.upstream.client import Client
from parrot_backend.endpoints.upstream.lateness import Lateness
from parrot_backend.endpoints.upstream.probing import trouble_of
from parrot_backend.endpoints.upstream.recognize import Recognized, recognized
from parrot_backend.endpoints.upstream.stream import Stream
from parrot_backend.wire.errors import EndpointLostError, ParrotError, UnavailableError

logger = logging.getLogger(__name__)

_AGAIN_SECONDS = 0.5
_MISSES = 2
# Where our own event loop stood still for so long, it is not the server that did not answer in time.
_LATE_SECONDS = 1.0
_TRIES_WHEN_LATE = 5
_LONGEST_DELAY = 10.0


class Health:
    """Watches one server, whatever it answers, and ends what runs on it when it is lost.

    Args:
        client: asks the server.
        model: the operator's; None for the only one that it serves.
        hang_seconds: where an answer has been silent for so long, the server is asked how it is.
        came: told what was recognized, before it is ready; also when it comes back.
        polled: run after each probe that went well.
    """

    def __init__(
        self,
        client: Client,
        model: str | None,
        hang_seconds: float,
        came: Callable[[Recognized], Recognized],
        polled: Callable[[], Awaitable[None]],
    ) -> None:
        self.state: EndpointState = "starting"
        self.why = "the engine has not been started"
        self.streams: set[Stream] = set()
        self._client = client
        self._model = model
        self._hang_seconds = hang_seconds
        self._came = came
        self._polled = polled
        self._known: Recognized | None = None
        self._watchers: list[Callable[[], None]] = []
        self._keeping: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[str | None] | None = None
        self._backoff = Backoff(first=0.5, most=_LONGEST_DELAY)
        self._wanted = True
        self._wake = asyncio.Event()

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` after every change of state, and whenever `tell` is."""
        self._watchers.append(changed)

    def tell(self) -> None:
        """Tell the watchers that something has changed."""
        for changed in self._watchers:
            try:
                changed()
            except Exception:  # whatever else is wrong, it is watched on
                logger.exception("a watcher of the engine's state failed")

    async def start(self) -> None:
        """Recognize the server, and watch it from now on.

        Raises:
            ParrotError: it can't be used, and why.
        """
        known = self._came(await recognized(self._client, self._model))
        self._meet(known)
        self._keeping = asyncio.create_task(self._keep(known), name="watch an upstream")

    def check_ready(self) -> None:
        """Whether it takes jobs.

        Raises:
            UnavailableError: we are draining or closed.
            EndpointLostError: it is not there at the moment.
        """
        if not self._wanted:
            raise UnavailableError("the server is shutting down")
        if self.state != "ready":
            raise EndpointLostError(f"{self.why}; the engine is {self.state}")

    def check_alive(self) -> None:
        """Whether what runs on it may go on.

        Raises:
            UnavailableError: we are closed.
            EndpointLostError: it is dead.
        """
        if not self._alive:
            if not self._wanted:
                raise UnavailableError("the server is shutting down")
            raise EndpointLostError(f"{self.why}; the engine is {self.state}")

    async def doubt(self, why: str) -> None:
        """Something broke: ask the server how it is; where it does not answer it is dead.

        Raises:
            UnavailableError: we are closed meanwhile.
        """
        if self._known is None or not self._alive:
            return
        missed = await self._probed(self._known)
        if missed and self._alive:  # else somebody else who doubted has said so
            self._die(f"{why}; {missed}")

    def refuse(self, why: str) -> None:
        """It can't be used as it is, as its answer to a job has shown."""
        if self._alive:
            self._die(why)

    def drain(self) -> None:
        """Take no more jobs."""
        self._wanted = False
        if self.state == "ready":
            self._become("draining")

    async def aclose(self) -> None:
        """Stop watching, and end what runs."""
        self._wanted = False
        tasks = [task for task in (self._keeping, self._probing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.state != "dead":
            self._become("dead")
        self._lose(lambda: UnavailableError("the server is shutting down"))

    def _meet(self, known: Recognized) -> None:
        self._known, self._model = known, known.model.name
        self._become("ready" if self._wanted else "draining")

    @property
    def _alive(self) -> bool:
        return self.state in ("ready", "draining")

    async def _keep(self, known: Recognized) -> None:
        """Watch it, wait for it to come back, and so on."""
        while True:
            since = time.monotonic()
            await self._watch_over(known)
            lived = time.monotonic() - since
            while (back := await self._returned(lived)) is None:
                lived = 0.0
            known = back

    async def _watch_over(self, known: Recognized) -> None:
        """Probe until it is dead."""
        misses, probed, every = 0, time.monotonic(), known.dialect.probe_seconds
        while self._alive:
            await self._pause(_AGAIN_SECONDS if misses else min(every, self._hang_seconds))
            if not misses and time.monotonic() - probed < every and not self._hangs(probed):
                continue
            probed = time.monotonic()
            missed = await self._probed(known)
            misses = misses + 1 if missed else 0
            if missed and misses >= _MISSES and self._alive:
                self._die(missed)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    def _hangs(self, probed: float) -> bool:
        """Whether an answer is silent for long, and nobody has asked since."""
        now = time.monotonic()
        return any(now - max(s.heard, probed) > self._hang_seconds for s in self.streams)

    async def _probed(self, known: Recognized) -> str | None:
        """What is wrong with it, or None; who asks at the same time gets the same answer."""
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._probe(known), name="probe an upstream")
        probing = self._probing
        try:
            return await asyncio.shield(probing)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not probing.cancelled() or (task is not None and task.cancelling()):
                raise
            # Who asks is not cancelled: we are closed.
            raise UnavailableError("the server is shutting down") from None

    async def _probe(self, known: Recognized) -> str | None:
        begun = time.monotonic()
        try:
            for _ in range(_TRIES_WHEN_LATE):
                async with Lateness() as late:
                    missed = await trouble_of(self._client, known, lambda: self._heard_since(begun))
                if missed is None or late.seconds < _LATE_SECONDS:
                    break
            if missed is None:
                await self._polled()
        except Exception as error:  # a server can answer anything, and is watched on
            logger.debug("a probe failed", exc_info=error)
            return f"{self._client.address.place} tells nothing that we understand"
        return missed

    def _heard_since(self, moment: float) -> bool:
        return any(stream.heard > moment for stream in self.streams)

    async def _returned(self, lived: float) -> Recognized | None:
        """It, where it is there again after a while."""
        self._wake.clear()
        await asyncio.sleep(self._backoff.after(lived))
        try:
            known = self._came(await recognized(self._client, self._model))
        except Exception as error:  # a server can answer anything, and is asked again
            place = self._client.address.place
            told = error.message if isinstance(error, ParrotError) else f"{place}: {error!r}"
            if told != self.why:
                logger.warning("the engine at %s stays away: %s", place, told)
            self.why = told
            return None
        logger.info("%s is ready again", known.engine)
        self._become("starting")
        self._meet(known)
        return known

    def _die(self, why: str) -> None:
        """The state first: whoever loses a job sees that there is no place for it now."""
        logger.warning("the engine at %s is lost: %s", self._client.address.place, why)
        self.why = why
        self._become("dead")
        self._wake.set()
        self._lose(lambda: EndpointLostError(why))

    def _lose(self, error: Callable[[], ParrotError]) -> None:
        for stream in [*self.streams]:
            stream.lose(error())

    def _become(self, state: EndpointState) -> None:
        self.state = state
        self.tell()
