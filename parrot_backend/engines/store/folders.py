"""Where what the backend makes of models is kept: whole or not at all, one process at a time.

Imports nothing heavy.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from parrot_backend.wire.errors import UnavailableError

LOCK_SECONDS = 3600.0

_WANTED = {
    "config.json": ("config.json",),
    "weights (*.safetensors or pytorch_model*.bin)": ("*.safetensors", "pytorch_model*.bin"),
    "tokenizer (tokenizer.json, tokenizer.model or vocab.json)": (
        "tokenizer.json",
        "tokenizer.model",
        "vocab.json",
    ),
}


class StoreError(UnavailableError):
    """Another process keeps something in the store locked."""

    default_code = "model_store_locked"


def cache_folder() -> Path:
    """`PARROT_CACHE_DIR`, else a folder in the user's cache folder."""
    override = os.environ.get("PARROT_CACHE_DIR")
    return Path(override).expanduser() if override else platformdirs.user_cache_path("parrot")


def missing_files(folder: Path) -> list[str]:
    """What a folder lacks to be a Hugging Face model; empty if it is one."""
    return [
        what
        for what, patterns in _WANTED.items()
        if not any(file.is_file() for pattern in patterns for file in folder.glob(pattern))
    ]


@contextmanager
def turn(entry: Path, doing: str) -> Iterator[None]:
    """Hold the lock of an entry of the store, so that processes make it one after the other.

    Raises:
        StoreError: another process has held it for an hour; `doing` says what it does.
    """
    from filelock import FileLock, Timeout

    entry.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(entry.parent / f".{entry.name}.lock")
    try:
        held = lock.acquire(timeout=LOCK_SECONDS)
    except Timeout:
        raise StoreError(
            f"another process has been {doing} for over {LOCK_SECONDS / 60:.0f} minutes: end it "
            "and try again"
        ) from None
    with held:
        yield


@contextmanager
def workshop(folder: Path) -> Iterator[Path]:
    """A folder to work in; what the block leaves in its `model` becomes `folder`, unless it fails."""
    staging = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(staging / "model", folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
