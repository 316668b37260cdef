"""Locks on files, which the kernel frees when who holds them is gone."""

import fcntl
import os
from pathlib import Path


def hold(path: Path, *, shared: bool = False) -> int | None:
    """A descriptor that holds the lock until its last copy is closed; None where others hold it.

    Raises:
        OSError: the file can't be opened, or made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return descriptor


def is_held(path: Path) -> bool:
    """Whether anybody holds it; for a moment it is ours, where nobody does."""
    if not path.exists():
        return False
    descriptor = hold(path)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None


def holders(path: Path) -> int | None:
    """How many processes have taken the lock that they or their children hold; None where only
    Linux could tell."""
    try:
        locks, inode = Path("/proc/locks").read_text(), path.stat().st_ino
    except OSError:
        return None
    return sum(f":{inode} " in line for line in locks.splitlines() if " FLOCK " in line)
