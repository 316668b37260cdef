"""Session traffic, which is in nobody's way: one thread of the process sends what concerns sessions.

A plan is a hint. Whoever has one hands it over and goes on at once; only a chat request that could
claim something of it waits until it has been answered. So every request here has a short timeout, is
sent once, and when it fails there is no session.
"""

import asyncio
import atexit
import contextlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Hashable, Mapping
from concurrent.futures import Future, wait
from contextvars import Context
from typing import Any, TypeVar

from parrot_backend.wire.protocol import CLAIMED_HEADER, CallScope, Program
from parrot_backend.wire.views import SessionView
from parrot_integrations.client import operations
from parrot_integrations.client.errors import BackendConnectionError, BackendTimeoutError
from parrot_integrations.client.heartbeat import GRACE_SECONDS, Heartbeat
from parrot_integrations.client.transport.sending import Transport

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SECONDS = 5.0
_SECONDS_PER_CALL = 0.01
_FLUSH_SECONDS = 1.5
_LEISURE_SECONDS = 0.3
_SPARED_SECONDS = 10.0

Submitted = Future[str | None]
"""The session's id, when what was submitted has been answered; None where none was opened."""


class PendingSession:
    """A session that its first program opens.

    Nothing here waits: programs are sent in their order, and a request that is to claim something of
    them waits for `submitted`.

    Args:
        transport: of the backend.
        scope: where the session belongs.

    Attributes:
        error: why there is no session, where a program could not be submitted.
    """

    def __init__(self, transport: Transport, scope: CallScope) -> None:
        self.error: BaseException | None = None
        self._transport = transport
        self._scope = scope
        self._id: str | None = None
        self._closing: Future[SessionView | None] | None = None
        self._unclaimed = 0
        self._hurry = asyncio.Event()
        self._carried = False
        self._order = asyncio.Lock()
        self._submitted = _answered(None)
        # A forked child has no thread that would answer.
        self._process = os.getpid()

    @property
    def submitted(self) -> Submitted:
        """What all programs that were handed over by now will come to."""
        return self._submitted if os.getpid() == self._process else _answered(None)

    @property
    def closed(self) -> Future[SessionView | None] | None:
        """The final counts, when it has been closed; None where nobody has asked for that.

        They come to None where it was not closed, or by another session's opening.
        """
        if self._closing is None or os.getpid() != self._process:
            return None
        if not self._closing.done():
            _owner().soon(self._hurry.set)
        return self._closing

    def heard(self, headers: Mapping[str, str]) -> None:
        """A request of the session was answered: whether it claimed a call, the headers tell."""
        self._unclaimed -= headers.get(CLAIMED_HEADER) == "true"

    def submit(self, program: Program) -> None:
        """Send a program behind those before it; the first one opens the session."""
        if self._closing is None and os.getpid() == self._process:
            self._unclaimed += len(program.calls)
            self._submitted = _owner().post(self._submit(program))

    def close(self) -> None:
        """End the session, behind what is on its way.

        Where all of its calls have been claimed there is nothing to be cancelled, and so no hurry: the
        next session's opening closes it too.
        """
        if self._closing is None and os.getpid() == self._process:
            self._closing = _owner().post(self._close())

    async def _submit(self, program: Program) -> str | None:
        try:
            async with self._order:
                spared = time.monotonic() < _owner().stalled.get(self._transport.key, 0.0)
                if self.error is None and self._closing is None and not spared:
                    await self._send(program)
                return self._id
        except (Exception, asyncio.CancelledError) as error:  # cancelled at the process's end
            logger.warning("the plan was not submitted, running without it: %s", error)
            self.error = error
            if isinstance(error, BackendTimeoutError):
                _owner().stalled[self._transport.key] = time.monotonic() + _SPARED_SECONDS
            return self._id

    async def _send(self, program: Program) -> None:
        # Whoever waits for this waits for no longer than for an answer.
        patience = min(_SECONDS, self._transport.timeout.read or _SECONDS)
        timeout = patience + _SECONDS_PER_CALL * len(program.calls)
        if self._id is None:
            over = _owner().over.pop(self._transport.key, {})
            name = f"s-{secrets.token_hex(12)}"
            opening = operations.open_session(program, self._scope, list(over), name, GRACE_SECONDS)
            try:
                self._id = (await self._transport.aonce(opening, timeout)).id
                _owner().heartbeat.begin(self, self._transport, self._id)
            except (BackendTimeoutError, BackendConnectionError):
                # It may have been opened all the same, and its calls would run for nobody.
                _owner().post(self._disown(name))
                raise
            finally:
                for session in over.values():
                    session._carried = self._id is not None
                    session._hurry.set()
        else:
            await self._transport.aonce(operations.submit(self._id, program), timeout)

    async def _disown(self, name: str) -> None:
        with contextlib.suppress(Exception):
            await self._transport.aonce(operations.close_session(name), _SECONDS)

    async def _close(self) -> SessionView | None:
        try:
            async with self._order:
                if self._id is None:
                    return None
                _owner().heartbeat.end(self)
                if not self._unclaimed and await self._is_closed_by_another(self._id):
                    return None
                return await self._transport.aonce(operations.close_session(self._id), _SECONDS)
        except (Exception, asyncio.CancelledError) as error:
            logger.info("session %s was not closed, it will expire: %s", self._id, error)
            return None

    async def _is_closed_by_another(self, session_id: str) -> bool:
        """Whether an opening that comes soon closes it too."""
        over = _owner().over
        if _owner().hurrying:
            return False
        over.setdefault(self._transport.key, {})[session_id] = self
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), _LEISURE_SECONDS)
        waiting = over.get(self._transport.key, {})
        if waiting.pop(session_id, None) is None:
            await asyncio.wait_for(self._hurry.wait(), _SECONDS)  # of the opening that took it
        elif not waiting:
            del over[self._transport.key]
        return self._carried


class _Owner:
    """The thread that sends, with the event loop that its connections belong to.

    `over` has, by backend, the sessions that the next opening may close; `stalled`, until when one that
    did not answer in time is spared plans; `heartbeat` tells backends of their sessions.
    """

    def __init__(self) -> None:
        self.heartbeat = Heartbeat()
        self.over: dict[Hashable, dict[str, PendingSession]] = {}
        self.hurrying = False
        self.stalled: dict[Hashable, float] = {}
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._ending = False
        self._pending: set[Future[Any]] = set()
        self._thread = threading.Thread(target=self._run, name="parrot-sessions", daemon=True)
        self._thread.start()

    def post(self, work: Coroutine[Any, Any, T | None]) -> Future[T | None]:
        """Have something done, and forget it when it is; it comes to None where it can't be."""
        if self._ending:
            work.close()
            raise RuntimeError("the process ends, and no more session is opened")
        future: Future[T | None] = Future()
        # Running, and so not cancelled for everybody when one waiting task is cancelled.
        future.set_running_or_notify_cancel()
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        # An empty context: connections, which are kept, would keep the caller's.
        self._loop.call_soon_threadsafe(self._begin, work, future, context=Context())
        return future

    def soon(self, act: Callable[[], object]) -> None:
        """Have something done in the thread."""
        self._loop.call_soon_threadsafe(act)

    def _begin(self, work: Coroutine[Any, Any, T | None], future: Future[T | None]) -> None:
        def finish(task: asyncio.Task[T | None]) -> None:
            failed = task.cancelled() or task.exception() is not None
            future.set_result(None if failed else task.result())

        self._loop.create_task(work).add_done_callback(finish)

    def end(self, seconds: float) -> None:
        """Finish what is on its way, within so many seconds, and close the connections."""
        self.soon(self._hurry)
        wait(list(self._pending), seconds)
        self._ending = True
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(seconds)

    def _hurry(self) -> None:
        self.hurrying = True
        for sessions in self.over.values():
            for session in sessions.values():
                session._hurry.set()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._until_over())

    async def _until_over(self) -> None:
        await self._over.wait()


# By process: a forked child has the object and not its thread. What it inherits stays referred to, so
# that nothing of its parent's is closed by the garbage collector.
_owners: dict[int, _Owner] = {}
_lock = threading.Lock()


def _owner() -> _Owner:
    # Who has a session has an owner, and closes it without the lock: maybe as the garbage collector
    # does, in a thread that holds it.
    if (owner := _owners.get(os.getpid())) is not None:
        return owner
    with _lock:
        if (owner := _owners.get(os.getpid())) is None:
            owner = _owners[os.getpid()] = _Owner()
        return owner


def _answered(session_id: str | None) -> Submitted:
    future: Submitted = Future()
    future.set_result(session_id)
    return future


def flush(seconds: float = _FLUSH_SECONDS) -> None:
    """Send what is on its way and end the thread; runs at exit, before managed backends are ended."""
    with _lock:
        owner = _owners.pop(os.getpid(), None)
    if owner is not None:
        owner.end(seconds)


def _renew_lock() -> None:
    """A lock that another thread held at the time of a fork is never released in the child."""
    global _lock
    _lock = threading.Lock()


# Exit handlers run last in, first out: `managed` has registered its own when it was imported.
atexit.register(flush)
os.register_at_fork(after_in_child=_renew_lock)
