"""How many threads are worth computing with."""

import math
import os
from functools import cache
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OF_THIS_PROCESS = Path("/proc/self/cgroup")


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
    return cpu_quota(_CGROUPS, _OF_THIS_PROCESS)


def cpu_quota(cgroups: Path, of_process: Path) -> float:
    """Cores' worth of time that a container or service gets; infinite where nothing limits it.

    Args:
        cgroups: where they are mounted, version 1 or 2.
        of_process: the file that names the process's own; each above it has a say as well. In a
            container it may name one that is not mounted, whose place the mount's root takes.
    """
    quotas = [math.inf]
    for folder, name in _hierarchies(cgroups, of_process):
        own = folder / name.lstrip("/")
        for group in (own, *own.parents):
            quotas += _quotas_of(group)
            if group == folder:
                break
    return min(quotas)


def _hierarchies(cgroups: Path, of_process: Path) -> list[tuple[Path, str]]:
    """Mount points that may limit the CPU, and the process's group below each."""
    found = [(cgroups, "/")]
    for line in _lines(of_process):
        _, controllers, name = line.split(":", 2)
        if not controllers:
            found.append((cgroups, name))
        elif "cpu" in controllers.split(","):
            found += [(cgroups / controllers, name), (cgroups / "cpu", name)]
    return found


def _quotas_of(group: Path) -> list[float]:
    version_2 = _numbers(" ".join(_lines(group / "cpu.max")))
    version_1 = _numbers(
        " ".join(_lines(group / "cpu.cfs_quota_us") + _lines(group / "cpu.cfs_period_us"))
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


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
