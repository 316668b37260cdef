"""Backends that this process starts for itself, one for each model, and ends at its exit.

The child watches our process id and ends by itself when we are killed. A forked process starts a
backend of its own; a backend that died is started again at the next request.
"""

import asyncio
import atexit
import importlib.util
import json
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future
from io import FileIO
from pathlib import Path
from typing import cast

from platformdirs import user_log_path

from parrot_integrations.client.errors import BackendStartError

logger = logging.getLogger(__name__)

_DEFAULT_START_TIMEOUT = 600.0
_STOP_TIMEOUT = 10.0
_KEPT_LOGS = 20
_TAIL_LINES = 20
_LOOK_SECONDS = 0.5
_BACKEND_PACKAGES = ("torch", "transformers", "fastapi", "uvicorn")


class ManagedBackend:
    """One backend process, from the moment it is started.

    Args:
        model: name or folder of the model to serve; None for the backend's default.

    Attributes:
        process: the child.
        log: file that has its standard error.
        address: its base URL, once it answers; a `BackendStartError` where it does not come up.
    """

    def __init__(self, model: str | None) -> None:
        self.log = _new_log()
        told = model or "the default model"
        logger.info("starting a backend for %s, log: %s", told, self.log)
        self.address: Future[str] = Future()
        # Running, and so not cancelled for everybody when one waiting task is cancelled.
        self.address.set_running_or_notify_cancel()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                _command(model),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                # A Ctrl-C in the terminal is the application's to handle.
                start_new_session=True,
            )
        self._stdout = cast(FileIO, self.process.stdout)
        threading.Thread(target=self._wait_until_ready, daemon=True).start()

    def is_usable(self) -> bool:
        """Whether the process runs, and has come up or still may."""
        failed = self.address.done() and self.address.exception() is not None
        return self.process.poll() is None and not failed

    def stop(self) -> None:
        """Ends the process, by force after 10 s; by force, what it has started ends with it."""
        self.process.terminate()
        try:
            self.process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            # Its group is its own, and has this id for as long as we have not seen its end.
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._stdout.close()

    def _wait_until_ready(self) -> None:
        try:
            self.address.set_result(self._read_address(_start_timeout()))
        except Exception as error:  # whoever waits for the address must learn of any failure
            self.stop()
            self.address.set_exception(error)

    def _read_address(self, timeout: float) -> str:
        """The base URL that the child prints, as one line of JSON, when it is ready."""
        deadline = time.monotonic() + timeout
        line = b""
        while not line.endswith(b"\n"):
            left = max(0.0, deadline - time.monotonic())
            if select.select([self._stdout], [], [], min(left, _LOOK_SECONDS))[0]:
                if not (read := self._stdout.read(4096)):
                    raise self._failure(f"ended with exit code {self.process.wait()}")
                line += read
            elif self.process.poll() is not None:  # and a process that it started has its output
                raise self._failure(f"ended with exit code {self.process.returncode}")
            elif not left:
                raise self._failure(
                    f"was not ready after {timeout:g} s; PARROT_START_TIMEOUT sets that time"
                )
        try:
            return str(json.loads(line)["base_url"])
        except (ValueError, TypeError, KeyError):
            raise self._failure(f"printed {line!r} in place of its address") from None

    def _failure(self, what: str) -> BackendStartError:
        missing = [name for name in _BACKEND_PACKAGES if importlib.util.find_spec(name) is None]
        remedy = (
            f"Not installed: {', '.join(missing)}. Run `pip install 'parrot-integrations[backend]'`"
            ", or name a running backend with base_url= or PARROT_BASE_URL.\n"
            if missing
            else ""
        )
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
        return BackendStartError(
            f"The managed backend {what}.\n{remedy}Its log, {self.log}, ends with:\n{tail}"
        )


_backends: dict[tuple[int, str | None], ManagedBackend] = {}
_lock = threading.Lock()


def named_model(model: str | None) -> str | None:
    """The model, or else the one that PARROT_MODEL names; None for the backend's own default."""
    return model or os.environ.get("PARROT_MODEL") or None


def backend(model: str | None = None) -> ManagedBackend:
    """This process's backend for `model`, started where none runs; it may not be ready yet.

    Args:
        model: name or folder of the model; None for PARROT_MODEL, or the backend's own default.
    """
    # Keyed by process: a forked child must neither use nor end what its parent started.
    key = os.getpid(), named_model(model)
    with _lock:
        known = _backends.get(key)
        if known is not None and known.is_usable():
            return known
        started = _backends[key] = ManagedBackend(key[1])
    if known is not None:
        known.stop()
    return started


def base_url(model: str | None = None) -> str:
    """Base URL of this process's backend for `model`, waiting until it is ready.

    Raises:
        BackendStartError: it ended early, or was not ready within PARROT_START_TIMEOUT seconds
            (600 by default: the first start may fetch and convert the model).
    """
    return backend(model).address.result()


async def abase_url(model: str | None = None) -> str:
    """As `base_url`, without blocking the event loop."""
    address = backend(model).address
    return address.result() if address.done() else await asyncio.wrap_future(address)


def stop_all() -> None:
    """Ends the backends that this process has started; runs at exit."""
    with _lock:
        own = [_backends.pop(key) for key in list(_backends) if key[0] == os.getpid()]
    for each in own:
        each.process.terminate()
    for each in own:
        each.stop()


def _command(model: str | None) -> list[str]:
    serve = [sys.executable, "-m", "parrot_backend", "serve", "--managed", str(os.getpid())]
    return [*serve, "--model", model] if model else serve


def _start_timeout() -> float:
    return float(os.environ.get("PARROT_START_TIMEOUT") or _DEFAULT_START_TIMEOUT)


def _new_log() -> Path:
    try:
        folder = user_log_path("parrot", appauthor=False, ensure_exists=True)
        handle, path = tempfile.mkstemp(".log", f"backend-{os.getpid()}-", folder)
    except OSError:
        handle, path = tempfile.mkstemp(".log", "parrot-backend-")
    else:
        _remove_old_logs(folder)
    os.close(handle)
    return Path(path)


def _remove_old_logs(folder: Path) -> None:
    by_age = sorted(folder.glob("backend-*.log"), key=lambda log: log.stat().st_mtime)
    for log in by_age[:-_KEPT_LOGS]:
        log.unlink(missing_ok=True)


def _renew_lock() -> None:
    """A lock that another thread held at the time of a fork is never released in the child."""
    global _lock
    _lock = threading.Lock()


atexit.register(stop_all)
os.register_at_fork(after_in_child=_renew_lock)
