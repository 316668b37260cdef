"""Memory that can be had is what the machine has, and what the container may have."""

from pathlib import Path

import pytest

from parrot_backend.engines.free_memory import available_memory
from parrot_backend.engines.torch_engine.memory import kv_cache

MEMINFO = "MemTotal: 9000 kB\nMemFree: 100 kB\nMemAvailable:    4000 kB\n"
LIMITED = {
    "memory.max": "3000000\n",
    "memory.current": "2500000\n",
    "memory.stat": "anon 1\ninactive_file 400000\n",
}


def available(folder: Path, files: dict[str, str], group: str = "0::/\n") -> int | None:
    """Of a process in `group`, where the hierarchy's files are those."""
    for name, text in {"meminfo": MEMINFO, "self": group}.items():
        (folder / name).write_text(text)
    for name, text in files.items():
        (folder / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup" / name).write_text(text)
    return available_memory(folder / "meminfo", folder / "cgroup", folder / "self")


@pytest.mark.parametrize(
    ("files", "group", "expected"),
    [
        ({}, "0::/\n", 4000 * 1024),
        (LIMITED, "0::/\n", 900_000),
        (LIMITED | {"memory.max": "max\n"}, "0::/\n", 4000 * 1024),
        ({f"a/{name}": text for name, text in LIMITED.items()}, "0::/a/b\n", 900_000),
        (LIMITED | {"memory.current": "3500000\n"}, "0::/\n", 0),
        (
            {
                "memory/x/memory.limit_in_bytes": "2000000\n",
                "memory/x/memory.usage_in_bytes": "1500000\n",
                "memory/x/memory.stat": "total_inactive_file 100000\ninactive_file 7\n",
            },
            "4:memory:/x\n",
            600_000,
        ),
    ],
)
def test_available(files: dict[str, str], group: str, expected: int, tmp_path: Path) -> None:
    assert available(tmp_path, files, group) == expected


def test_where_nothing_tells_it_is_not_known(tmp_path: Path) -> None:
    assert available_memory(tmp_path / "no", tmp_path / "none", tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("bytes_available", "expected"),
    [(8 * 2**30, 2 * 2**30), (2**40, 4 * 2**30), (None, 2**28)],
)
def test_keys_and_values_take_a_quarter_of_it(
    bytes_available: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What files fill that nobody needs counts: else an engine that starts again has hardly any."""
    monkeypatch.setattr(kv_cache, "available_memory", lambda: bytes_available)
    assert kv_cache.default_kv_memory() == expected
