"""How many threads are worth computing with."""

import math
import os
from functools import cache
from pathlib import Path

from parrot_backend.engines.cgroups import MOUNTED, OF_THIS_PROCESS, groups, text_of


def usable_cores() -> int:
    """`OMP_NUM_THREADS`, or the cores that this process may run on and has a quota for."""
    chosen = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if chosen.isdecimal() and int(chosen) > 0:
        return int(chosen)
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _quota())))


@cache
def _quota() -> float:
    return cpu_quota()


def cpu_quota(mounted: Path = MOUNTED, of_process: Path = OF_THIS_PROCESS) -> float:
    """Cores' worth of time that a container or service gets; infinite where nothing limits it.

    The arguments are those of `groups`.
    """
    each = groups("cpu", mounted, of_process)
    return min((quota for group in each for quota in _quotas_of(group)), default=math.inf)


def _quotas_of(group: Path) -> list[float]:
    version_2 = _numbers(text_of(group / "cpu.max"))
    version_1 = _numbers(
        f"{text_of(group / 'cpu.cfs_quota_us')} {text_of(group / 'cpu.cfs_period_us')}"
    )
    return [
        quota / period
        for quota, period in (pair for pair in (version_2, version_1) if len(pair) == 2)
        if quota > 0 and period > 0
    ]


def _numbers(text: str) -> list[int]:
    """None, where one is not a number: `max`."""
    try:
        return [int(word) for word in text.split()]
    except ValueError:
        return []
