"""Threads are as many as the cores that a process may use, and has a quota for."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from parrot_backend.engines import cores

UNLIMITED = {"cpu.max": "max 100000\n"}


def quota(folder: Path, group: str, files: dict[str, str]) -> float:
    """Of a process in `group`, where the hierarchy's files are those."""
    for name, text in files.items():
        (folder / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup" / name).write_text(text)
    (folder / "self").write_text(group)
    return cores.cpu_quota(folder / "cgroup", folder / "self")


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("0::/\n", {}, math.inf),
        ("0::/\n", UNLIMITED, math.inf),
        ("0::/\n", {"cpu.max": "100000 100000\n"}, 1),
        ("0::/a/b\n", UNLIMITED | {"a/b/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000"}, 0.5),
        # In a container without a namespace of its own, the group's name is that of the host.
        ("0::/docker/123\n", {"cpu.max": "200000 100000\n"}, 2),
        (
            "4:cpu,cpuacct:/docker/1\n2:memory:/x\n",
            {
                "cpu,cpuacct/docker/1/cpu.cfs_quota_us": "250000\n",
                "cpu,cpuacct/docker/1/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (
            "4:cpu,cpuacct:/docker/1\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            math.inf,
        ),
    ],
)
def test_quotas(group: str, files: dict[str, str], expected: float, tmp_path: Path) -> None:
    assert quota(tmp_path, group, files) == expected


@pytest.mark.parametrize(
    ("quota", "allowed", "chosen", "expected"),
    [
        (math.inf, 4, None, 4),
        (1.5, 4, None, 2),
        (0.1, 4, None, 1),
        (8.0, 4, None, 4),
        (1.0, 4, "3", 3),
        (math.inf, 4, "6,2", 6),
        (math.inf, 4, "many", 4),
    ],
)
def test_quota_and_affinity_count_where_no_number_is_chosen(
    quota: float, allowed: int, chosen: str | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "_quota", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(allowed)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if chosen is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", chosen)
    assert cores.usable_cores() == expected


def test_a_process_that_is_bound_to_a_core_has_one() -> None:
    core = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, {{{core}}});"
        "from parrot_backend.engines.cores import usable_cores; print(usable_cores())"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert said.stdout == "1\n"
