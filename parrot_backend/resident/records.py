"""What a backend tells of itself, to those who wait for it and to `parrot ps`."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Record:
    """A backend as it stands: written before its process begins by who starts it, then by itself.

    Attributes:
        model: as it was named; what is served may have a shorter name.
        version: of the package.
        log: file with what it writes.
        started: when, in seconds since 1970.
        pid: of its process, once that runs.
        born: see `birth`, of its process.
        ready: whether it has come up.
        stage: what it does meanwhile, in one or two words.
        done: bytes or pieces of `total`, where the stage can tell.
    """

    model: str
    version: str
    log: str
    started: float
    pid: int | None = None
    born: int | None = None
    ready: bool = False
    stage: str = "starting"
    done: int = 0
    total: int = 0

    @property
    def name(self) -> str:
        """The model's, without the folder that it is in."""
        return Path(self.model).name

    @property
    def lives(self) -> bool:
        """Whether its process id is still its own."""
        return self.pid is not None and birth(self.pid) == self.born


def birth(pid: int) -> int | None:
    """When the process began, in ticks: a later one with the same id has another birth.

    None where there is no such process, or only Linux could tell.
    """
    try:
        return int(stat_of(Path(f"/proc/{pid}"))[19])
    except OSError:
        return None


def stat_of(process: Path) -> list[str]:
    """What Linux says of a process behind its name, see proc(5); `process` is its folder in /proc.

    Raises:
        OSError: there is no such process, or no /proc.
    """
    return (process / "stat").read_text().rpartition(")")[2].split()


def read_record(path: Path) -> Record | None:
    """The record; None where there is none that we understand."""
    if not path.is_file():  # a pipe would be waited for
        return None
    try:
        return Record(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def write_record(path: Path, record: Record) -> None:
    """Put it in place of the one before, so that nobody reads half of it.

    Raises:
        OSError: it can't be written.
    """
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(record)))
    os.replace(fresh, path)
