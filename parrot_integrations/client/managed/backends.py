"""A process's hold on the backends that it shares with others: one for each model.

Who uses a backend holds a lock for as long as it lives, also through its forked children, and by that
the backend knows. One that has ended, whatever the reason, is started again at the next request.
"""

import asyncio
import os
import signal
import subprocess
import threading
import time
from concurrent.futures import Future
from contextlib import suppress

from parrot_backend.resident.locks import hold, is_held
from parrot_backend.resident.places import Place, is_same
from parrot_backend.resident.records import Record, read_record
from parrot_backend.resident.residents import answer
from parrot_integrations.client.errors import BackendStartError
from parrot_integrations.client.managed import starting
from parrot_integrations.client.managed.telling import Telling

_LOOK_SECONDS = 0.05
_FIRST_PATIENCE, _LAST_PATIENCE = 1.0, 8.0
_END_SECONDS = 0.5
_REFUSAL_SECONDS = 10.0


class ManagedBackend:
    """The backend of one model, as this process knows it.

    Args:
        model: name or folder of the model to serve; None for PARROT_MODEL, or the default one.

    Attributes:
        place: where it is found.
        base_url: its address, whether it runs or not.

    Raises:
        BackendStartError: there is no folder in which it could be found.
    """

    def __init__(self, model: str | None) -> None:
        self._model = starting.full_name(model)
        self.place = starting.place_of(self._model)
        self.base_url = self.place.url
        self._lock = threading.Lock()
        self._waiting: Future[str] | None = None
        self._answering: tuple[int, int] | None = None
        self._record: Record | None = None
        self._losing = threading.Lock()
        self._loss: tuple[tuple[int, int] | None, float, str] = None, 0.0, ""
        self._process: subprocess.Popen[bytes] | None = None
        self._users: int | None = None

    def is_up(self) -> bool:
        """Whether the one that we know lives: a few system calls, for every request asks."""
        with _lock, suppress(OSError):  # the folder goes just now
            return (known := self._answering) is not None and (
                known == self._socket() and is_held(self.place.lock)
            )
        return False

    def address(self) -> "Future[str]":
        """Its address, once it answers; a `BackendStartError` where it does not come up."""
        with self._lock:
            if self._waiting is None or (self._waiting.done() and not self.is_up()):
                self._waiting = Future()
                # Running, and so not cancelled for everybody when one waiting task is cancelled.
                self._waiting.set_running_or_notify_cancel()
                waiting = threading.Thread(
                    target=self._wait, args=(self._waiting,), daemon=True, name="wait for a backend"
                )
                waiting.start()
            return self._waiting

    def loss(self) -> str:
        """What became of it, for whom it was answering; it is just about to be gone.

        Found out once for all whom it was answering: it may take a moment.
        """
        with self._losing:
            which, until, told = self._loss
            if self._answering is None or which != self._answering or time.monotonic() > until:
                which, (lives, told) = self._answering, self._find_loss()
                until = time.monotonic() + _END_SECONDS if lives else float("inf")
                self._loss = which, until, told
            return told

    def _find_loss(self) -> tuple[bool, str]:
        record = self._record
        deadline = time.monotonic() + _END_SECONDS
        while (lives := self.is_up()) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        how = "closed the connection" if lives else self._how_it_ended(record)
        told = f"The managed backend {how} before the answer was complete; "
        told += "`parrot ps` says how it is." if lives else "the next request starts another."
        return lives, told if record is None else f"{told} {starting.log_of(record)}"

    def _wait(self, address: "Future[str]") -> None:
        telling = Telling()
        try:
            self._find_or_start(telling)
        except OSError as error:
            telling.close()
            address.set_exception(
                BackendStartError(f"The managed backend can't be reached or started: {error}.")
            )
        except Exception as error:  # whoever waits for the address must learn of any failure
            telling.close()
            address.set_exception(error)
        else:
            telling.close()
            address.set_result(self.base_url)

    def _find_or_start(self, telling: Telling) -> None:
        """Until it answers.

        Whoever gets the lock has to start it; the others wait for that one, and fail with it.
        """
        timeout = starting.start_timeout()
        deadline = time.monotonic() + timeout
        patience = _FIRST_PATIENCE
        awaited: Record | None = None
        refusing, refused = None, 0.0
        while True:
            self._use_place()
            self._start_unless(awaited)
            record, found = read_record(self.place.record), self._socket()
            heard = answer(self.place.socket, patience) if self._users is not None else "not yet"
            if heard == "yes":
                self._answering, self._record = found, record
                return
            patience *= 2 if heard == "silence" else 1
            if patience > _LAST_PATIENCE:
                raise BackendStartError(f"The managed backend does not answer.{_remedy(record)}")
            if time.monotonic() > deadline:
                raise BackendStartError(
                    f"The managed backend was not ready after {timeout:g} s, and goes on; "
                    f"PARROT_START_TIMEOUT sets that time.{_remedy(record)}"
                )
            if heard != "not yet" or record is None or not record.ready:
                refusing = None
            elif refusing != record:
                refusing, refused = record, time.monotonic()
            elif time.monotonic() > refused + _REFUSAL_SECONDS:
                raise BackendStartError(
                    f"The managed backend says it is ready, and takes no connections at "
                    f"{self.place.socket}: it hangs in its end, or is another machine's. "
                    f"`parrot stop {record.pid}` ends it."
                )
            if record is not None:
                awaited = awaited if record.ready else record
                telling.tell(record, "not answering" if heard == "silence" else None)
            time.sleep(_LOOK_SECONDS)

    def _use_place(self) -> None:
        """Hold the users' lock, until this process ends, where one looks for it now.

        The folder goes with the last login of its user, or old files are cleared away in it.
        """
        if not self.place.folder.is_dir():
            self.place = Place(starting.folder(), self.place.key)
            self.base_url = self.place.url
        if self._users is not None and not is_same(self.place.users, os.fstat(self._users)):
            os.close(self._users)
            self._users = None
        if self._users is None:
            self._users = hold(self.place.users, shared=True)

    def _start_unless(self, awaited: Record | None) -> None:
        """Start one where none lives, unless the one that we have waited for is what died.

        Raises:
            BackendStartError: it is, or it can't be started.
        """
        with _lock:
            if (lock := hold(self.place.lock)) is None:
                return
            if awaited is None:
                self._process = starting.start(self.place, self._model, lock)
                return
            self.place.record.unlink(missing_ok=True)
            os.close(lock)
        raise starting.failure(awaited, self._how_it_ended(awaited))

    def _socket(self) -> tuple[int, int] | None:
        """What tells one backend's socket from the next one's."""
        try:
            found = self.place.socket.stat()
        except OSError:
            return None
        return found.st_ino, found.st_ctime_ns

    def _how_it_ended(self, record: Record | None) -> str:
        """Its parent learns that, and others only that it did."""
        code, pid = None, record and record.pid
        if self._process is not None and pid in (None, self._process.pid):
            with suppress(subprocess.TimeoutExpired):
                code = self._process.wait(_END_SECONDS)
        if code is None:
            return "ended"
        if code >= 0:
            return f"ended with exit code {code}"
        memory = "; the machine may have run out of memory" if code == -signal.SIGKILL else ""
        return f"was killed by {signal.Signals(-code).name}{memory}"


def _remedy(record: Record | None) -> str:
    if record is None or record.pid is None:
        return " `parrot ps` lists what runs."
    return f" `parrot stop {record.pid}` ends it.\n{starting.log_of(record)}"


_backends: dict[tuple[int, str], ManagedBackend] = {}
_lock = threading.Lock()


def backend(model: str | None = None) -> ManagedBackend:
    """This process's hold on the backend for `model`, which need not run.

    Args:
        model: name or folder of the model; None for PARROT_MODEL, or the backend's own default.
    """
    # Keyed by process: a forked child has none of the threads that its parent waits with.
    key = os.getpid(), starting.full_name(model)
    with _lock:
        if (known := _backends.get(key)) is None:
            known = _backends[key] = ManagedBackend(key[1])
        return known


def base_url(model: str | None = None) -> str:
    """Base URL of the backend for `model`, waiting until it answers.

    Raises:
        BackendStartError: it ended early, does not answer, or was not ready within
            PARROT_START_TIMEOUT seconds (600 by default: the first start may fetch the model).
    """
    return backend(model).address().result()


async def abase_url(model: str | None = None) -> str:
    """As `base_url`, without blocking the event loop."""
    address = backend(model).address()
    return address.result() if address.done() else await asyncio.wrap_future(address)


def loss(url: str) -> str | None:
    """What became of the managed backend at this address; None where it is none."""
    return None if (known := _known(url)) is None else known.loss()


async def aloss(url: str) -> str | None:
    """As `loss`, without blocking the event loop."""
    return None if (known := _known(url)) is None else await asyncio.to_thread(known.loss)


def _known(url: str) -> ManagedBackend | None:
    for (process, _), known in list(_backends.items()):
        if process == os.getpid() and known.base_url == url:
            return known
    return None


# A fork in between would leave the child without a lock, or with a copy of one that is a backend's.
os.register_at_fork(
    before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
)
