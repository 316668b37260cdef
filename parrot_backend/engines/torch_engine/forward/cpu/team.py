"""The threads that compute a step together."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import Any

from parrot_backend.engines.cores import usable_cores
from parrot_backend.engines.torch_engine.forward.cpu.phases import Work


def together(function: Callable[..., None], phases: int, *arguments: Any) -> None:
    """Call a compiled function in all threads, with what they share behind its arguments.

    Returns when this thread has; the others may come late, as what is to be done is done by then.

    Args:
        function: claims the pieces of so many `phases`; allocates nothing while it has one.
    """
    threads = usable_cores()
    work = Work.of(phases, threads)
    helpers: list[Future[None]] = []
    with suppress(RuntimeError):  # the interpreter ends, and this thread computes alone
        for _ in range(threads - 1):
            helpers.append(_pool().submit(function, *arguments, work))
    function(*arguments, work)
    for helper in helpers:
        helper.cancel()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), "parrot-compute")


# A forked child has the pool and none of its threads: what was submitted would wait for ever, and grow.
os.register_at_fork(after_in_child=_pool.cache_clear)
