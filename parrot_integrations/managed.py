"""Backends that this process starts for itself, one for each model, and ends at its exit.

The child watches our process id and ends by itself when we are killed. A forked process starts a
backend of its own; a backend that died is started again at the next request.
"""

import asyncio
import atexit
import contextlib
import importlib.util
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_log_path

from parrot_integrations.errors import BackendStartError

_DEFAULT_START_TIMEOUT = 600.0
_STOP_TIMEOUT = 10.0
_KEPT_LOGS = 20
_TAIL_LINES = 20
_BACKEND_PACKAGES = ("torch", "transformers", "fastapi", "uvicorn")


@dataclass(frozen=True)
class ManagedBackend:
    """A running backend of ours; `log` is the file that has its standard error."""

    base_url: str
    pid: int
    log: Path
    process: "subprocess.Popen[bytes]"

    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None


_starts: dict[tuple[int, str | None], "Future[ManagedBackend]"] = {}
_lock = threading.Lock()


def backend(model: str | None = None) -> ManagedBackend:
    """This process's backend for `model`; started, with a wait, where none runs.

    Args:
        model: name or folder of the model to serve; None for the backend's default.

    Raises:
        BackendStartError: it ended early, or was not ready within PARROT_START_TIMEOUT seconds.
    """
    return _started(model).result()


async def abackend(model: str | None = None) -> ManagedBackend:
    """As `backend`, without blocking the event loop."""
    start = _started(model)
    return start.result() if start.done() else await asyncio.wrap_future(start)


def stop_all() -> None:
    """Ends the backends that this process has started. Runs at exit."""
    with _lock:
        own = [key for key in _starts if key[0] == os.getpid()]
        starts = [_starts.pop(key) for key in own]
    ...


def _started(model: str | None) -> "Future[ManagedBackend]":
    """The one start of `model`'s backend that all callers wait for."""
    key = os.getpid(), model
    with _lock:
        start = _starts.get(key)
        if start is None or _is_over(start):
            ...
        return start
