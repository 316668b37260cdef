"""How the kernels are compiled: by numba, once per version of this package."""

import errno
import hashlib
import logging
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numba
from llvmlite import binding

from parrot_backend.engines import stages
from parrot_backend.engines.store.folders import (
    cache_folder,
    forget_unused,
    turn,
    used_now,
    why_unusable,
)

logger = logging.getLogger(__name__)

# Sums may be taken in any order, as vectors do; infinities and NaN stay what they are.
_FAST = {"reassoc", "contract", "arcp", "nsz"}


def compiled(*, fast: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """A decorator: the function compiled at first use for the types that it is given, and kept.

    Args:
        fast: whether its sums may be taken as vectors do; for loops that do nothing else, as what is
            in the same loop may come out otherwise by a bit, depending on where its arrays lie.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        folder = _folder()
        before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(folder)
        try:
            return numba.njit(
                cache=folder is not None,
                nogil=True,
                fastmath=_FAST if fast else False,
            )(function)
        finally:
            numba.config.CACHE_DIR = before

    return decorate


@contextmanager
def compiling(kind: str) -> Iterator[None]:
    """Around the first use of a kind of kernels: one process compiles them, others wait and load them.

    Raises:
        StoreError: another process has been compiling for an hour.
    """
    folder = _folder()
    if folder is None or (folder / f"{kind}.ready").exists():
        yield
        return
    with turn(folder / kind, "compiling the kernels"):
        ready = folder / f"{kind}.ready"
        if not ready.exists():
            stages.begin("compiling kernels")
            logger.info("compiling the kernels (once, it takes a minute)")
        yield
        ready.touch()


@cache
def _folder() -> Path | None:
    """Of these very sources, where numba looks at one file, though a kernel is made of several.

    Those of sources that nobody has used for long are removed. None where nothing can be kept.
    """
    # What numba keeps is of no use to another version of it, or on another processor.
    made_by = (numba.__version__, platform.python_version(), binding.get_host_cpu_name())
    digest = hashlib.blake2b(repr(made_by).encode(), digest_size=8)
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    folder = cache_folder() / "kernels" / digest.hexdigest()
    try:
        if not folder.exists():
            forget_unused(folder.parent)
            folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        used_now(folder)
    except OSError as error:
        logger.warning(
            "compiled kernels can't be kept, each start compiles them for a minute: %s",
            why_unusable(error, folder),
        )
        return None
    return folder
