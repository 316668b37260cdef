"""How much memory a process can still have."""

from pathlib import Path

from parrot_backend.engines.cgroups import MOUNTED, OF_THIS_PROCESS, groups, text_of

# A group's limit, what it uses, and of what that is: version 2 and version 1.
_FILES = (
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)


def available_memory(
    meminfo: Path = Path("/proc/meminfo"),
    mounted: Path = MOUNTED,
    of_process: Path = OF_THIS_PROCESS,
) -> int | None:
    """Bytes that programs can have now, in this container; None where nothing tells.

    What the system keeps of files only because nobody needs the memory counts as available.

    Args:
        meminfo: Linux's account of the machine.
        mounted: see `groups`.
        of_process: see `groups`.
    """
    told = []
    for line in text_of(meminfo).splitlines():
        if line.startswith("MemAvailable:"):
            told.append(int(line.split()[1]) * 1024)
    for group in groups("memory", mounted, of_process):
        for limit, used in _FILES:
            numbers = text_of(group / limit).strip(), text_of(group / used).strip()
            if all(number.isdecimal() for number in numbers):
                files = _inactive_files(text_of(group / "memory.stat"))
                told.append(max(0, int(numbers[0]) - int(numbers[1]) + files))
    return min(told, default=None)


def _inactive_files(counts: str) -> int:
    pairs = (line.split() for line in counts.splitlines())
    known = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}
    return known.get("total_inactive_file", known.get("inactive_file", 0))
