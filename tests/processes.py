"""`parrot serve` in a process of its own, as a user has it, and what can be seen of it from outside."""

import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import httpx

from tests.servers import eventually

LOADED_SECONDS = 240  # kernels that are new have to be compiled first

_GONE, _ZOMBIE = "", "Z"
_ENDED = (_GONE, _ZOMBIE)


@dataclass(frozen=True, slots=True)
class Served:
    """A server that is ready."""

    process: subprocess.Popen[str]
    log: TextIO

    @property
    def url(self) -> str:
        """Its address, once it has written that it is ready."""
        ready = re.search(r"ready at (\S+),", self.told())
        return ready[1] if ready else ""

    def stats(self) -> dict[str, Any]:
        """The engine's load and counts."""
        stats: dict[str, Any] = httpx.get(f"{self.url}/v1/stats", timeout=30).json()
        return stats

    def told(self) -> str:
        """All that it and its engine have written."""
        self.log.seek(0)
        return self.log.read()

    def engine(self) -> int:
        """The process of its engine."""
        (engine,) = children(self.process.pid)
        return engine


@contextmanager
def parrot_serve(*arguments: str, **environment: str) -> Iterator[Served]:
    """`parrot serve` with these arguments, on a free port, until the end of the context."""
    command = [sys.executable, "-m", "parrot_backend", "serve", "--port", "0", *arguments]
    with (
        tempfile.TemporaryFile("a+") as log,
        subprocess.Popen(
            command, stdout=log, stderr=log, text=True, env={**os.environ, **environment}
        ) as process,
    ):
        served = Served(process, log)
        try:
            eventually(lambda: served.url or process.poll() is not None, LOADED_SECONDS)
            assert served.url, served.told()
            yield served
        finally:
            process.kill()


def children(parent: int) -> list[int]:
    """The processes that another one has started, and that live."""
    found = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    states = {process: _state(process) for process in found}
    return [
        process for process, (state, of) in states.items() if of == parent and state not in _ENDED
    ]


def alive(process: int) -> bool:
    """Whether it runs; one that has ended, and whose parent has not asked about it, does not."""
    return _state(process)[0] not in _ENDED


def resident_bytes(process: int) -> int:
    """The memory that it holds."""
    pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def allow_connections() -> None:
    """Let this process, and those that it starts, have as many as the system lets it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _state(process: int) -> tuple[str, int]:
    """Its state, as a letter, and who started it."""
    try:
        told = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return _GONE, 0
    state, parent, *_ = told.rpartition(")")[2].split()
    return state, int(parent)
