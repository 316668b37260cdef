"""What Parrot shares with others here: folders, the port, backends that run."""

import errno
import json
import os
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from parrot_backend import DEFAULT_PORT, __version__
from parrot_backend.doctor.findings import Finding, Level
from parrot_backend.engines.store.folders import cache_folder
from parrot_backend.resident.places import runtime_folder
from parrot_backend.resident.residents import residents

_ELSEWHERE = "name another folder in PARROT_CACHE_DIR"


def folders() -> Iterator[Finding]:
    """Where sockets and models are kept: writable for this user, and for nobody else."""
    try:
        runtime = runtime_folder()
    except OSError as error:
        advice = "programs can't start a backend: set XDG_RUNTIME_DIR to a folder of yours"
        yield Finding("sockets", "fault", str(error), advice)
    else:
        yield Finding("sockets", "ok", f"{runtime}, private")
    yield _store(cache_folder())


def _store(folder: Path) -> Finding:
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not there.is_dir():
        return Finding("cache", "fault", f"{there} is not a folder", f"remove it, or {_ELSEWHERE}")
    if not os.access(there, os.W_OK | os.X_OK):
        advice = f"make it yours, or {_ELSEWHERE}; what can't be kept is made again at each start"
        return Finding("cache", "fault", f"{there} can't be written", advice)
    if there == folder and folder.stat().st_mode & 0o002:
        advice = f"others can put code and weights there: chmod o-w {folder}"
        return Finding("cache", "fault", f"{folder} can be written by everybody", advice)
    return Finding("cache", "ok", str(folder))


def port(number: int = DEFAULT_PORT) -> Iterator[Finding]:
    """Whether a server's usual port is free, and else who answers there."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", number))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                yield Finding(
                    "port", "fault", f"{number} can't be had: {error.strerror}", _other(number)
                )
                return
        else:
            yield Finding("port", "ok", f"{number} is free")
            return
    who = _who(number)
    level: Level = "ok" if who else "warning"
    yield Finding(
        "port",
        level,
        f"{number} is in use by {who or 'another program'}",
        "" if who else _other(number),
    )


def _other(number: int) -> str:
    return f"parrot serve --port {number + 1}, or end what uses it"


def _who(number: int) -> str | None:
    """A Parrot server, if it is one."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{number}/health", timeout=1) as response:
            told = json.loads(response.read(65536))
    except (OSError, ValueError):
        return None
    if isinstance(told, dict) and "version" in told and told.get("status") == "ok":
        return f"a Parrot server ({told['version']})"
    return None


def backends() -> Iterator[Finding]:
    """What was started for this user's programs."""
    found = residents()
    if not found:
        yield Finding("backends", "ok", "none runs")
    for each in found:
        told = f"{each.record.name} ({each.record.pid}): {each.state}"
        again = f"parrot stop {each.record.pid}, the next program starts another"
        if each.state == "not answering":
            yield Finding("backends", "fault", told, f"see {each.record.log}; {again}")
        elif each.record.version != __version__:
            yield Finding("backends", "warning", f"{told}, of version {each.record.version}", again)
        else:
            yield Finding("backends", "ok", told)
