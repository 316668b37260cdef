"""What one child runs for the server, from its start to its end."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Callable

from parrot_backend.endpoints.base import Job
from parrot_backend.endpoints.process import frames
from parrot_backend.endpoints.process.child_process import ChildProcess
from parrot_backend.endpoints.process.frames import FrameError
from parrot_backend.endpoints.process.recipe import Recipe
from parrot_backend.engines.base import Delta
from parrot_backend.engines.stages import Stage
from parrot_backend.wire.errors import EngineError, InvalidRequestError, ParrotError
from parrot_backend.wire.text_protocol import LLMRequest

LOADING_SECONDS = 60.0
"""At least so long a child may be silent while it loads, for that holds its interpreter at times."""

_LAST_WORDS_SECONDS = 1.0
_MAX_HEARTBEAT_SECONDS = 1.0

_Event = Delta | list[int] | ParrotError


class Connection:
    """A child whose engine is loaded; make one with `open`, and await `ended` for all of its life.

    Args:
        child: ours from now on.
        ready: what it said of itself.
        hang_seconds: how long it may be silent, or make no step while it has something to run.
    """

    def __init__(self, child: ChildProcess, ready: frames.Ready, hang_seconds: float) -> None:
        self.card = ready.card
        self.stats = ready.stats
        self._child = child
        self._hang_seconds = hang_seconds
        self._numbers = itertools.count()
        self._inboxes: dict[int, asyncio.Queue[_Event]] = {}
        self._failure: Callable[[], ParrotError] | None = None
        self._silent = self._stuck = 0.0

    @classmethod
    async def open(
        cls, recipe: Recipe, hang_seconds: float, loading: Callable[[Stage], None]
    ) -> "Connection":
        """Start a child and wait until its engine is loaded; `loading` is told how far that is.

        Raises:
            ParrotError: it can't be, as the child says, or the child ended or hung before.
        """
        child = await ChildProcess.start(recipe, min(hang_seconds / 10, _MAX_HEARTBEAT_SECONDS))
        try:
            first = await _loaded(child.reader, max(hang_seconds, LOADING_SECONDS), loading)
            if isinstance(first, frames.Ready):
                return cls(child, first, hang_seconds)
            with contextlib.suppress(TimeoutError):  # it says why, and then it ends by itself
                await asyncio.wait_for(child.exited(), _LAST_WORDS_SECONDS)
        except BaseException:
            await child.killed()
            raise
        how = await child.killed()
        raise first.trouble.error() if isinstance(first, frames.NotStarted) else EngineError(how)

    @property
    def pid(self) -> int:
        """The child's."""
        return self._child.process.pid

    async def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        """Run a job; see `Endpoint.generate`."""
        number, inbox = self._inbox()
        try:
            await self._ask(frames.Generate(number, job))
            while isinstance(event := await inbox.get(), Delta):
                yield event
                if event.finish_reason is not None:
                    return
            raise _error(event)
        finally:
            self._leave(number)

    async def tokenize(self, request: LLMRequest) -> list[int]:
        """The tokens of a request's prompt; see `Endpoint.tokenize`."""
        number, inbox = self._inbox()
        try:
            await self._ask(frames.Tokenize(number, request))
            if isinstance(event := await inbox.get(), list):
                return event
            raise _error(event)
        finally:
            self._leave(number)

    def send(self, frame: bytes) -> None:
        """Send an encoded frame that has no answer."""
        self._child.writer.write(frame)

    def fail(self, failure: Callable[[], ParrotError]) -> None:
        """End all that runs, and all that is asked for later; each has an error of its own."""
        self._failure = failure
        for inbox in self._inboxes.values():
            inbox.put_nowait(failure())
        self._inboxes.clear()

    def terminate(self) -> None:
        """Have the child end in its own way."""
        self._child.terminate()

    async def ended(self) -> str:
        """Hand over what the child sends until it has ended; says how that came.

        One that hangs, or sends nonsense, is killed, and so is any if we are cancelled.
        """
        receiving = asyncio.create_task(self._receive(), name="receive")
        exiting = asyncio.create_task(self._child.exited(), name="exit")
        hanging, wrong = asyncio.create_task(self._hang(), name="hang"), ""
        try:
            await asyncio.wait((receiving, exiting, hanging), return_when=asyncio.FIRST_COMPLETED)
            if hanging.done():
                wrong = hanging.result()
            else:  # its channel and its process end one shortly after the other
                await asyncio.wait((receiving, exiting), timeout=_LAST_WORDS_SECONDS)
            if receiving.done():
                wrong = receiving.result()
        finally:
            for task in (receiving, exiting, hanging):
                task.cancel()
            how = await self._child.killed()
        return wrong or how

    async def _receive(self) -> str:
        """Until the channel is closed; says what is wrong, if that is why."""
        try:
            while (frame := await frames.read(self._child.reader)) is not None:
                if not isinstance(frame, frames.Progress):
                    raise FrameError(f"{type(frame).__name__}, which is not a child's to send now")
                self._take(frame)
        except Exception as error:  # whatever it is, this child is not to be gone on with
            return f"the engine's process sent what can't be read: {error}"
        return ""

    def _take(self, progress: frames.Progress) -> None:
        self._silent = 0.0
        stats, idle = progress.stats, not (progress.stats.running or progress.stats.waiting)
        if idle or progress.deltas or stats.steps != self.stats.steps:
            self._stuck = 0.0
        self.stats = stats
        for number, delta in progress.deltas:
            self._deliver(number, delta, last=delta.finish_reason is not None)
        for number, tokens in progress.tokenized:
            self._deliver(number, tokens, last=True)
        for number, trouble in progress.failed:
            self._deliver(number, trouble.error(), last=True)

    def _deliver(self, number: int, event: _Event, *, last: bool) -> None:
        """To who asked, unless they have left."""
        if (inbox := self._inboxes.get(number)) is not None:
            inbox.put_nowait(event)
            if last:
                del self._inboxes[number]

    async def _hang(self) -> str:
        """When it hangs; says how.

        Time counts in our own turns: where the server itself was stopped, nobody hung.
        """
        turn = self._hang_seconds / 20
        while max(self._silent, self._stuck) < self._hang_seconds:
            await asyncio.sleep(turn)
            self._silent += turn
            self._stuck += turn
        what = "was silent" if self._silent >= self._hang_seconds else "made no step"
        return f"the engine's process hung: it {what} for {self._hang_seconds:g} s and was killed"

    def _inbox(self) -> tuple[int, asyncio.Queue[_Event]]:
        if self._failure is not None:
            raise self._failure()
        number, inbox = next(self._numbers), asyncio.Queue[_Event]()
        self._inboxes[number] = inbox
        return number, inbox

    async def _ask(self, frame: frames.Generate | frames.Tokenize) -> None:
        try:
            self.send(frames.encoded(frame))
        except FrameError as error:
            raise InvalidRequestError(f"the request can't be run: {error}") from None
        with contextlib.suppress(ConnectionError):  # its inbox is told what has happened
            await self._child.writer.drain()

    def _leave(self, number: int) -> None:
        """Have the child free what it holds for a number that nobody waits for any more."""
        if self._inboxes.pop(number, None) is not None:
            self.send(frames.encoded(frames.Cancel(number)))


async def _loaded(
    reader: asyncio.StreamReader, seconds: float, loading: Callable[[Stage], None]
) -> frames.Frame | None:
    """What a child says when it has loaded; so long it may be silent before, in our own turns.

    Raises:
        EngineError: it hangs.
    """
    silent, turn = 0.0, seconds / 20
    reading = asyncio.create_task(frames.read(reader), name="load")
    try:
        while silent < seconds:
            await asyncio.wait((reading,), timeout=turn)
            silent += turn
            if reading.done():
                if not isinstance(frame := reading.result(), frames.Loading):
                    return frame
                loading(frame.stage)
                reading, silent = asyncio.create_task(frames.read(reader), name="load"), 0.0
    finally:
        reading.cancel()
    raise EngineError(
        f"the engine's process hung while it loaded: it got nowhere for {seconds:g} s and was killed"
    )


def _error(event: _Event) -> ParrotError:
    return event if isinstance(event, ParrotError) else EngineError(f"no answer is {event!r:.80}")
