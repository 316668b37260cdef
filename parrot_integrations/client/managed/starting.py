"""Which backend a process means by none, and how that is started."""

import importlib.util
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from platformdirs import user_log_path

import parrot_backend
from parrot_backend import DEFAULT_MODEL, __version__
from parrot_backend.resident.places import Place, key_of, runtime_folder
from parrot_backend.resident.records import Record, write_record
from parrot_integrations.client.errors import BackendStartError

logger = logging.getLogger("parrot_integrations.client.managed")

_DEFAULT_START_TIMEOUT = 600.0
_KEPT_LOGS = 20
_TAIL_LINES = 20
_TAIL_BYTES = 16_384
_BACKEND_PACKAGES = ("torch", "transformers", "fastapi", "uvicorn")
# They say how we reach a backend or how long one stays, and nothing of what it serves.
_OURS = {"PARROT_BASE_URL", "PARROT_MODEL", "PARROT_START_TIMEOUT", "PARROT_LINGER"}
# Threads and their waits, which one script may have chosen for itself, and not for all who share.
_ONE_SCRIPTS = ("OMP_", "GOMP_", "KMP_", "MKL_")
# A backend is in another working folder than we are.
_PATHS = ("PARROT_CACHE_DIR", "PARROT_API_KEYS", "HF_HOME", "HF_HUB_CACHE", "OLLAMA_MODELS")


def named_model(model: str | None) -> str | None:
    """The model, or else the one that PARROT_MODEL names; None for the backend's own default."""
    return model or os.environ.get("PARROT_MODEL") or None


def place_of(model: str) -> Place:
    """Where the backend for `model` is, by all that makes a difference to what it answers.

    Raises:
        BackendStartError: no folder can be used for that.
    """
    settings = {
        name: value
        for name, value in _environment().items()
        if name.startswith("PARROT_") and name not in _OURS
    }
    package = f"{__version__} in {Path(parrot_backend.__file__).parent} of {sys.executable}"
    files = "\n".join(map(str, _stamps(Path(model))))
    # Files may be shared with another machine, and sockets are not.
    host = socket.gethostname()
    told = {**settings, "": package, "model": model, "files": files, "host": host}
    return Place(folder(), key_of(told))


def folder() -> Path:
    """Where backends are found now.

    Raises:
        BackendStartError: no folder can be used for that.
    """
    try:
        return runtime_folder()
    except OSError as error:
        raise BackendStartError(
            f"The managed backend can't be started: {error}. Set XDG_RUNTIME_DIR to a folder of "
            "yours, or name a running backend with base_url= or PARROT_BASE_URL."
        ) from None


def full_name(model: str | None) -> str:
    """The model as it is called in every working folder."""
    name = named_model(model) or DEFAULT_MODEL
    path = os.path.expanduser(name)
    return os.path.abspath(path) if name != DEFAULT_MODEL and os.path.exists(path) else name


def _stamps(model: Path) -> Iterator[int]:
    """Of a local model's files: one that was trained further meanwhile is another model."""
    if not model.is_absolute():  # a hub id, and no folder of that name where we happen to be
        return
    if model.exists():
        yield model.stat().st_mtime_ns
    if model.is_dir():
        yield from sorted(file.stat().st_mtime_ns for file in model.iterdir() if file.is_file())


def start(place: Place, model: str, lock: int) -> "subprocess.Popen[bytes]":
    """Start a backend, which outlives us; from now on it holds its place's lock and not we.

    Raises:
        BackendStartError: the system does not let us.
    """
    try:
        # A dead one's would look like one that answers, or comes up, as the lock is held again.
        place.socket.unlink(missing_ok=True)
        place.record.unlink(missing_ok=True)
        log = _new_log()
        record = Record(model, __version__, str(log), time.time())
        write_record(place.record, record)
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command(place, model),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(lock,),
                # Nothing of the folder that this script happens to be in, or of its own settings.
                cwd="/",
                env=_environment(),
                # A Ctrl-C in the terminal, and its end, are the application's.
                start_new_session=True,
            )
    except OSError as error:
        raise BackendStartError(f"The managed backend can't be started: {error}.") from error
    finally:
        os.close(lock)
    logger.info("starting a backend for %s, log: %s", model, log)
    # Whoever outlives its child has to take note of its end.
    threading.Thread(target=process.wait, daemon=True, name="end of a backend").start()
    return process


def command(place: Place, model: str) -> list[str]:
    """What serves a model at a place."""
    serve = [sys.executable, "-P", "-m", "parrot_backend", "serve"]
    return [*serve, "--resident", str(place.folder / place.key), "--model", model]


def _environment() -> dict[str, str]:
    """Ours, as a backend is to have it."""
    mine = {
        name: os.path.abspath(os.path.expanduser(value)) if name in _PATHS and value else value
        for name, value in os.environ.items()
        if not name.startswith(_ONE_SCRIPTS)
    }
    paths = [path for path in mine.get("PYTHONPATH", "").split(os.pathsep) if path]
    ours = Path(parrot_backend.__file__).parents[1]
    if ours.name not in {
        "site-packages",
        "dist-packages",
    }:  # a checkout, found in our folder perhaps
        paths.insert(0, str(ours))
    if paths:
        mine["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, paths))
    return mine


def start_timeout() -> float:
    """Seconds that a start may take before who waits for it is told.

    Raises:
        BackendStartError: PARROT_START_TIMEOUT is no number.
    """
    given = os.environ.get("PARROT_START_TIMEOUT") or _DEFAULT_START_TIMEOUT
    try:
        return float(given)
    except ValueError:
        raise BackendStartError(f"PARROT_START_TIMEOUT is {given!r}: give seconds.") from None


def failure(record: Record, what: str) -> BackendStartError:
    """The error of a start, with what can be known about its reason."""
    missing = [name for name in _BACKEND_PACKAGES if importlib.util.find_spec(name) is None]
    remedy = (
        f"Not installed: {', '.join(missing)}. Run `pip install 'parrot-integrations[backend]'`"
        ", or name a running backend with base_url= or PARROT_BASE_URL.\n"
        if missing
        else ""
    )
    return BackendStartError(f"The managed backend {what}.\n{remedy}{log_of(record)}")


def log_of(record: Record) -> str:
    """Where a backend's log is, and how it ends."""
    try:
        with open(record.log, "rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return f"Its log was {record.log}."
    return "\n".join([f"Its log, {record.log}, ends with:", *lines[-_TAIL_LINES:]])


def _new_log() -> Path:
    try:
        folder = user_log_path("parrot", appauthor=False, ensure_exists=True)
        handle, path = tempfile.mkstemp(".log", "backend-", folder)
    except OSError:
        handle, path = tempfile.mkstemp(".log", "parrot-backend-")
    else:
        _remove_old_logs(folder)
    os.close(handle)
    return Path(path)


def _remove_old_logs(folder: Path) -> None:
    logs = []
    for log in folder.glob("backend-*.log"):
        with suppress(FileNotFoundError):  # another process removes old ones as well
            logs.append((log.stat().st_mtime, log))
    for _, log in sorted(logs)[:-_KEPT_LOGS]:
        log.unlink(missing_ok=True)
