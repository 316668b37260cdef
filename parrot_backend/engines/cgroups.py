"""Control groups: what Linux lets a container or a service have, and every group above it."""

from collections.abc import Iterator
from pathlib import Path

MOUNTED, OF_THIS_PROCESS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def groups(controller: str, mounted: Path, of_process: Path) -> Iterator[Path]:
    """The folders of a process's groups, each of which has a say.

    Args:
        controller: what they control, such as `cpu` or `memory`; in version 1 each has a hierarchy.
        mounted: where they are, version 1 or 2.
        of_process: the file that names the process's own. In a container it may name one that is not
            mounted, whose place the mount's root takes.
    """
    for folder, name in _hierarchies(controller, mounted, of_process):
        own = folder / name.lstrip("/")
        for group in (own, *own.parents):
            yield group
            if group == folder:
                break


def _hierarchies(controller: str, mounted: Path, of_process: Path) -> list[tuple[Path, str]]:
    """Mount points, and the process's group below each."""
    found = [(mounted, "/"), (mounted / controller, "/")]
    for line in text_of(of_process).splitlines():
        _, controllers, name = line.split(":", 2)
        if not controllers:
            found.append((mounted, name))
        elif controller in controllers.split(","):
            found += [(mounted / controllers, name), (mounted / controller, name)]
    return found


def text_of(file: Path) -> str:
    """Empty where there is none."""
    try:
        return file.read_text()
    except OSError:
        return ""
