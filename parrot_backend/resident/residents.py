"""The backends that run, for `parrot ps`, and how one is stopped."""

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Literal

from parrot_backend.resident.locks import hold, holders, is_held
from parrot_backend.resident.places import Place, places
from parrot_backend.resident.records import Record, read_record, stat_of

Answer = Literal["yes", "not yet", "silence"]

_ANSWER_SECONDS = 1.0
_END_SECONDS = 10.0
_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Resident:
    """A backend that lives.

    Attributes:
        state: the stage of its start, then that of its endpoint, or that it doesn't answer.
        users: processes that use it; None where the system can't tell.
        memory: bytes, of it and its engine, what they share counted once; None as for `users`.
    """

    place: Place
    record: Record
    state: str
    users: int | None
    memory: int | None


def residents() -> list[Resident]:
    """All that live; what dead ones have left is cleared away."""
    return [found for place in places() if (found := _resident(place)) is not None]


def stop(resident: Resident) -> None:
    """End it in its own way, or by force after 10 s; its engine ends with it.

    Raises:
        OSError: it can't be ended.
    """
    pid = resident.record.pid
    if pid is None:
        raise OSError(f"the backend for {resident.record.model} is only starting: try again")
    if is_held(resident.place.lock) and not resident.record.lives:
        raise OSError(f"process {pid} is not the backend for {resident.record.model}: try again")
    for sent, seconds in ((signal.SIGTERM, _END_SECONDS), (signal.SIGKILL, _END_SECONDS)):
        # An id may be another process's by now, so it is looked at before each signal. It is that of
        # its group as well, which it leads.
        if not _runs(resident):
            break
        with contextlib.suppress(ProcessLookupError):
            (os.kill if sent == signal.SIGTERM else os.killpg)(pid, sent)
        if _ended(resident, seconds):
            break
    else:
        raise OSError(f"the backend with process id {pid} does not end")
    _clear(resident.place)


def answer(path: Path, seconds: float) -> Answer:
    """Whether a backend answers at its socket.

    That it can be connected to says little: for one that hangs, the kernel takes the connection.
    """
    try:
        _asked(path, "/health", seconds)
    except (TimeoutError, BlockingIOError):  # the latter where too many wait already
        return "silence"
    except (OSError, HTTPException):
        return "not yet"
    return "yes"


def _asked(path: Path, what: str, seconds: float) -> bytes:
    """What a backend answers."""
    with (
        socket.socket(socket.AF_UNIX) as sock,
        contextlib.closing(HTTPConnection("localhost")) as asking,
    ):
        sock.settimeout(seconds)
        sock.connect(str(path))
        asking.sock = sock
        asking.request("GET", what)
        return asking.getresponse().read()


def _resident(place: Place) -> Resident | None:
    record = read_record(place.record)
    if record is None or not is_held(place.lock):
        _clear(place)
        return None
    return Resident(place, record, _state(place, record), holders(place.users), _memory(record.pid))


def _state(place: Place, record: Record) -> str:
    try:
        return str(json.loads(_asked(place.socket, "/ready", _ANSWER_SECONDS))["status"])
    except (TimeoutError, BlockingIOError):
        return "not answering"
    except (OSError, HTTPException, ValueError, TypeError, LookupError):
        pass  # it is starting, or ending
    if record.total and not record.ready:
        return f"{record.stage} {100 * record.done // record.total}%"
    return record.stage


def _clear(place: Place) -> None:
    """Unlink what a dead backend has left, unless one is just being started in its place."""
    if (held := hold(place.lock)) is not None:
        place.socket.unlink(missing_ok=True)
        place.record.unlink(missing_ok=True)
        os.close(held)


def _runs(resident: Resident) -> bool:
    """Whether its lock is held, and not by who starts another or only looks."""
    return is_held(resident.place.lock) and resident.record.lives


def _ended(resident: Resident, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while _runs(resident):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


def _memory(pid: int | None) -> int | None:
    """Of all processes in its session, which it leads; None where /proc is not Linux's."""
    sizes = [_proportional_size(each) for each in _session(pid)]
    return sum(sizes) if sizes else None


def _session(leader: int | None) -> Iterator[Path]:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            if int(stat_of(process)[3]) == leader:
                yield process


def _proportional_size(process: Path) -> int:
    with contextlib.suppress(OSError):
        for line in (process / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
