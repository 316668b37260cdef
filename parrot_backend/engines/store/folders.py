"""Where what the backend makes of models is kept: whole or not at all, one process at a time.

What is used is marked as used at every start, and what has not been for a month is removed.

Imports nothing heavy.
"""

import contextlib
import errno
import fnmatch
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from parrot_backend.wire.errors import UnavailableError

logger = logging.getLogger(__name__)

LOCK_SECONDS = 3600.0
UNUSED_SECONDS = 30 * 86400.0

FULL = (errno.ENOSPC, errno.EDQUOT)
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)

_WANTED = {
    "config.json": ("config.json",),
    "weights (*.safetensors or pytorch_model*.bin)": ("*.safetensors", "pytorch_model*.bin"),
    "tokenizer (tokenizer.json, tokenizer.model or vocab.json)": (
        "tokenizer.json",
        "tokenizer.model",
        "vocab.json",
    ),
}
# Where weights are looked for, in this order; an index names the files that they are in.
_INDEX = ".index.json"
_HEADS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


class StoreError(UnavailableError):
    """Another process keeps something in the store locked."""

    default_code = "model_store_locked"


class StoreUnusableError(StoreError):
    """Nothing can be kept; the message says why, and what to do."""

    default_code = "model_store_unusable"


def cache_folder() -> Path:
    """`PARROT_CACHE_DIR`, else a folder in the user's cache folder."""
    override = os.environ.get("PARROT_CACHE_DIR")
    return Path(override).expanduser() if override else platformdirs.user_cache_path("parrot")


def lacking(files: Iterable[str]) -> list[str]:
    """What files of these names lack to be those of a Hugging Face model."""
    names = list(files)
    return [
        what
        for what, patterns in _WANTED.items()
        if not any(fnmatch.filter(names, pattern) for pattern in patterns)
    ]


def missing_files(folder: Path) -> list[str]:
    """What a folder lacks to be a whole Hugging Face model; empty if it is one."""
    try:
        names = {file.name for file in folder.iterdir() if file.is_file()}
    except OSError:
        names = set()
    head = next((file for file in _HEADS if file in names), "")
    shards = _shards(folder / head) if head.endswith(_INDEX) else set()
    return lacking(names) + sorted(shards - names)


def _shards(index: Path) -> set[str]:
    """The files that a model's weights are in; whoever loads an index that is none says so."""
    try:
        told = json.loads(index.read_text(encoding="utf-8"))
        return {str(file) for file in told["weight_map"].values()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return set()


def bytes_in(place: Path) -> int:
    """How much a file, or all in a folder, takes on the disk."""
    size = 0
    for file in place.rglob("*") if place.is_dir() else [place]:
        with contextlib.suppress(OSError):  # another process has just moved it
            size += file.stat().st_size if file.is_file() else 0
    return size


def why_unusable(error: OSError, place: Path) -> str:
    """Why nothing can be kept at `place`, and what to do."""
    if error.errno in FULL:
        what = f"the disk is full: make room at {place.parent}"
    elif error.errno in _UNWRITABLE:
        what = f"{place.parent} can't be written to ({error.strerror}): make it yours"
    else:
        return str(error)
    return f"{what}, or name another folder in PARROT_CACHE_DIR"


@contextmanager
def turn(entry: Path, doing: str) -> Iterator[None]:
    """Hold the lock of an entry of the store, so that processes make it one after the other.

    Raises:
        StoreUnusableError: the disk is full, or the store can't be written to.
        StoreError: another process has held it for an hour; `doing` says what it does.
    """
    from filelock import FileLock, Timeout

    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(entry.parent / f".{entry.name}.lock")
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            logger.info("another process is %s: waiting for it", doing)
            held = lock.acquire(timeout=LOCK_SECONDS)
        with held:
            yield
    except Timeout:
        raise StoreError(
            f"another process has been {doing} for over {LOCK_SECONDS / 60:.0f} minutes: end it "
            "and try again"
        ) from None
    except OSError as error:
        store, named = str(entry.parent), str(error.filename or entry)
        ours = named.startswith(store) or store.startswith(named)
        if error.errno in FULL or (error.errno in _UNWRITABLE and ours):
            raise StoreUnusableError(why_unusable(error, entry)) from error
        raise


def used_now(folder: Path) -> None:
    """Keep a folder for another month."""
    with contextlib.suppress(OSError):  # it may be read and not written, as in an image
        os.utime(folder)


def forget_unused(store: Path, unwanted: Callable[[Path], bool] = lambda _: False) -> None:
    """Remove what nobody has used for long, and what is `unwanted`.

    A process that runs may: it keeps the pages that it has mapped, and makes a folder again.
    """
    if not store.is_dir():
        return
    for entry in store.iterdir():
        with contextlib.suppress(OSError):  # another process removes it, or it is another user's
            if time.time() - entry.stat().st_mtime < UNUSED_SECONDS and not unwanted(entry):
                continue
            logger.info("removing %s, which is not used any more", entry)
            remove(entry)


def remove(path: Path) -> None:
    """Whatever it is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def workshop(folder: Path) -> Iterator[Path]:
    """A folder to work in; what the block leaves in its `model` becomes `folder`, unless it fails."""
    staging = folder.with_name(f".{folder.name}.partial")
    remove(staging)
    staging.mkdir(parents=True)
    try:
        yield staging
        remove(folder)
        os.replace(staging / "model", folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
