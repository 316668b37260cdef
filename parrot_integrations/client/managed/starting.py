"""Which backend a process means by none, and how that is started."""

import importlib.util
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
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
_BACKEND_PACKAGES = ("torch", "transformers", "fastapi", "uvicorn")
# They say how we reach a backend or how long one stays, and nothing of what it serves.
_OURS = {"PARROT_BASE_URL", "PARROT_MODEL", "PARROT_START_TIMEOUT", "PARROT_LINGER"}


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
        for name, value in os.environ.items()
        if name.startswith("PARROT_") and name not in _OURS
    }
    package = f"{__version__} in {Path(parrot_backend.__file__).parent} of {sys.executable}"
    files = "\n".join(map(str, _stamps(Path(model))))
    try:
        folder = runtime_folder()
    except OSError as error:
        raise BackendStartError(
            f"The managed backend can't be started: {error}. Set XDG_RUNTIME_DIR to a folder of "
            "yours, or name a running backend with base_url= or PARROT_BASE_URL."
        ) from None
    return Place(folder, key_of({**settings, "": package, "model": model, "files": files}))


def full_name(model: str | None) -> str:
    """The model as it is called in every working folder."""
    name = named_model(model) or DEFAULT_MODEL
    path = os.path.expanduser(name)
    return os.path.abspath(path) if name != DEFAULT_MODEL and os.path.exists(path) else name


def _stamps(model: Path) -> Iterator[int]:
    """Of a local model's files: one that was trained further meanwhile is another model."""
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
        # A dead one's would look like one that answers, as the lock is held again.
        place.socket.unlink(missing_ok=True)
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
    serve = [sys.executable, "-m", "parrot_backend", "serve"]
    return [*serve, "--resident", str(place.folder / place.key), "--model", model]


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
        lines = Path(record.log).read_text(errors="replace").splitlines()
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
    by_age = sorted(folder.glob("backend-*.log"), key=lambda log: log.stat().st_mtime)
    for log in by_age[:-_KEPT_LOGS]:
        log.unlink(missing_ok=True)
