"""A backend's own side of its place: it tells how it stands, and ends when nobody uses it."""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from parrot_backend.resident.locks import hold
from parrot_backend.resident.places import Place, is_same
from parrot_backend.resident.records import birth, read_record, write_record

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0


class Residency:
    """The stay of this process at a place, whose lock it holds by inheritance.

    Args:
        place: its files; what who started it has told there is kept up to date from now on.
        linger: how long it stays after the last user has gone, in seconds.

    Raises:
        OSError: nobody has told anything.
    """

    def __init__(self, place: Place, linger: float) -> None:
        record = read_record(place.record)
        if record is None:
            raise OSError(f"{place.record} is not there: only programs start such a backend")
        self.place = place
        self._linger = linger
        self._record = record
        self._users: int | None = None
        self._socket: os.stat_result | None = None
        self._tell(pid=os.getpid(), born=birth(os.getpid()))

    def bound(self) -> None:
        """Know the socket, which this process has just bound, from another that may follow it.

        Raises:
            OSError: it is gone already.
        """
        self._socket = self.place.socket.stat()

    def loading(self, stage: str, done: int, total: int) -> None:
        """Tell how far the start is; of an engine that is started again, its state tells."""
        if not self._record.ready:
            self._tell(stage=stage, done=done, total=total)

    def ready(self, model: str) -> None:
        """Tell that it can be asked, and what it serves."""
        self._tell(ready=True, model=model, stage="ready", done=0, total=0)

    async def unused(
        self, is_busy: Callable[[], bool], has_failed: Callable[[], bool] = lambda: False
    ) -> None:
        """When nobody has used it for as long as it lingers, or it is of no use any more.

        From then on nobody can become a user before this process is gone: a user has the lock first,
        and then looks for the socket. Where that is gone, as with the runtime folder at the end of a
        login, or another's, nobody can find it any more. One that has failed for good makes way: the
        next request starts another.
        """
        since = time.monotonic()
        while self._socket is not None and is_same(self.place.socket, self._socket):
            if has_failed():
                logger.error(
                    "ending: the engine has failed; the next request starts another backend"
                )
                return
            held = None
            with suppress(OSError):  # as where too many files are open: it is used, for all we know
                held = None if is_busy() else hold(self.place.users)
            if held is None:
                since = time.monotonic()
            elif time.monotonic() - since >= self._linger:
                self._users = held
                logger.info("ending: not used for %g s", self._linger)
                return
            else:
                os.close(held)
            await asyncio.sleep(min(_LOOK_SECONDS, self._linger / 4 + 0.05))
        logger.info("ending: %s is gone", self.place.socket)

    def end(self) -> None:
        """Take back what was told; the locks go with the process."""
        told = read_record(self.place.record)
        if told is not None and (told.pid, told.born) == (self._record.pid, self._record.born):
            self.place.record.unlink(missing_ok=True)

    def _tell(self, **changes: object) -> None:
        fresh = replace(self._record, **changes)  # type: ignore[arg-type]
        if fresh != self._record:
            self._record = fresh
            try:
                write_record(self.place.record, fresh)
            except OSError as error:  # it is found by its socket; only what is told of it is old
                logger.warning("can't write %s: %s", self.place.record, error)
