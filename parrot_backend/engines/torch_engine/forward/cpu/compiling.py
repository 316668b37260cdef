"""How the kernels are compiled: by numba, once per version of this package, for torch's own threads."""

import hashlib
import logging
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
import torch

from parrot_backend.engines import stages
from parrot_backend.engines.store.folders import cache_folder

logger = logging.getLogger(__name__)

# A second team of threads on the same cores would make every wait of either a sleep.
numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]

# Sums may be taken in any order, as vectors do; infinities and NaN stay what they are.
_FAST = {"reassoc", "contract", "arcp", "nsz"}


def compiled(*, parallel: bool = False, fast: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """A decorator: the function compiled at first use for the types that it is given, and kept.

    Args:
        parallel: whether its `prange` loops run on several threads.
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
                parallel=parallel,
                fastmath=_FAST if fast else False,
            )(function)
        finally:
            numba.config.CACHE_DIR = before

    return decorate


def threads() -> int:
    """How many threads compute what this thread starts; it is made to be as many as torch's."""
    count: int = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)
    numba.set_num_threads(count)
    return count


@cache
def _folder() -> Path | None:
    """Of these very sources: numba itself looks at one file, and a kernel is made of several.

    None where nothing can be kept.
    """
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    folder = cache_folder() / "kernels" / digest.hexdigest()
    if not folder.exists():
        stages.begin("compiling kernels")
        logger.info("the kernels are compiled at their first use, which takes a minute, once")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        logger.warning("compiled kernels can't be kept, each start compiles them: %s", error)
        return None
    return folder if os.access(folder, os.W_OK) else None
