"""The backends that run, for `parrot ps`, and how one is stopped."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from parrot_backend.resident.locks import hold, holders, is_held
from parrot_backend.resident.places import Place, places
from parrot_backend.resident.records import Record, read_record

Answer = Literal["yes", "not yet", "silence"]

_ANSWER_SECONDS = 1.0
_END_SECONDS = 10.0
_LOOK_SECONDS = 0.05
_HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Resident:
    """A backend that lives.

    Attributes:
        state: `ready`, the stage of its start, or that it doesn't answer.
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
    for sent, seconds in ((signal.SIGTERM, _END_SECONDS), (signal.SIGKILL, _END_SECONDS)):
        # The lock that is held says that this is still its process id, and its group's: it leads one.
        if not is_held(resident.place.lock):
            break
        with contextlib.suppress(ProcessLookupError):
            (os.kill if sent == signal.SIGTERM else os.killpg)(pid, sent)
        if _freed(resident.place.lock, seconds):
            break
    else:
        raise OSError(f"the backend with process id {pid} does not end")
    _clear(resident.place)


def answer(path: Path, seconds: float) -> Answer:
    """Whether a backend answers at its socket.

    That it can be connected to says little: for one that hangs, the kernel takes the connection.
    """
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(seconds)
        try:
            asking.connect(str(path))
            asking.sendall(_HEALTH)
            return "yes" if asking.recv(16) else "not yet"
        except (TimeoutError, BlockingIOError):  # the latter where too many wait already
            return "silence"
        except OSError:
            return "not yet"


def _resident(place: Place) -> Resident | None:
    record = read_record(place.record)
    if record is None or not is_held(place.lock):
        _clear(place)
        return None
    return Resident(place, record, _state(place, record), holders(place.users), _memory(record.pid))


def _state(place: Place, record: Record) -> str:
    if answer(place.socket, _ANSWER_SECONDS) == "silence":
        return "not answering"
    if record.total and not record.ready:
        return f"{record.stage} {100 * record.done // record.total}%"
    return record.stage


def _clear(place: Place) -> None:
    """Unlink what a dead backend has left, unless one is just being started in its place."""
    if (held := hold(place.lock)) is not None:
        place.socket.unlink(missing_ok=True)
        place.record.unlink(missing_ok=True)
        os.close(held)


def _freed(lock: Path, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_held(lock):
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
            if int((process / "stat").read_text().rpartition(")")[2].split()[3]) == leader:
                yield process


def _proportional_size(process: Path) -> int:
    with contextlib.suppress(OSError):
        for line in (process / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
