"""Where a user's backends are found: in a folder that only this user may enter."""

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

_KEY_LENGTH = 16
# macOS has the least room for the path of a socket: 104 bytes with the zero at its end, Linux 108.
_LONGEST_SOCKET = 103


@dataclass(frozen=True, slots=True)
class Place:
    """The files of one backend, whether they are there or not.

    Locks stay where they are: a file that is unlinked while another opens it would be two locks.
    """

    folder: Path
    key: str

    @property
    def lock(self) -> Path:
        """Held by the backend for as long as it lives, and before that by who starts it."""
        return self.folder / f"{self.key}.lock"

    @property
    def users(self) -> Path:
        """Held, shared, by each process that uses the backend."""
        return self.folder / f"{self.key}.users"

    @property
    def record(self) -> Path:
        """What the backend tells of itself; see `Record`."""
        return self.folder / f"{self.key}.json"

    @property
    def socket(self) -> Path:
        """Where it is asked, once it is ready."""
        return self.folder / f"{self.key}.sock"

    @property
    def url(self) -> str:
        """The socket, as a base URL."""
        return f"unix:{self.socket}"


def key_of(settings: Mapping[str, str]) -> str:
    """The name of the backend that has these settings."""
    told = json.dumps(dict(settings), sort_keys=True)
    return hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest()[:_KEY_LENGTH]


def runtime_folder() -> Path:
    """The first usable one of XDG_RUNTIME_DIR/parrot, run/ in the user's cache folder, one in /tmp.

    Raises:
        OSError: there is none; says why.
    """
    reasons = []
    for folder in _candidates():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check(folder)
        except OSError as error:
            reasons.append(f"{folder}: {error.strerror}")
        else:
            return folder
    raise OSError(f"there is no folder for the sockets of backends ({'; '.join(reasons)})")


def places() -> Iterator[Place]:
    """Of all backends that have told of themselves, wherever their users' environment has put them."""
    for folder in dict.fromkeys(_candidates()):
        try:
            _check(folder)
        except OSError:
            continue
        for record in sorted(folder.glob("*.json")):
            yield Place(folder, record.stem)


def is_same(path: Path, known: os.stat_result) -> bool:
    """Whether the file that was known by this path is still there, and not another in its place.

    Its inode is no other's as long as somebody has it open, as who has bound a socket does.
    """
    try:
        return os.path.samestat(path.stat(), known)
    except OSError:
        return False


def _candidates() -> Iterator[Path]:
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or os.devnull)
    if runtime.is_dir() and runtime.stat().st_uid == os.geteuid():  # under sudo it is another's
        yield runtime / "parrot"
    yield platformdirs.user_cache_path("parrot", appauthor=False) / "run"
    yield Path(tempfile.gettempdir()) / f"parrot-{os.geteuid()}"


def _check(folder: Path) -> None:
    """See that it is a folder of ours, for nobody else, that can be written.

    Raises:
        OSError: it is not.
    """
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(0, "it is not a folder of this user's")
    if found.st_mode & 0o077:
        folder.chmod(0o700)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(0, "it can't be written")
    if len(os.fsencode(folder)) + len("/.sock") + _KEY_LENGTH > _LONGEST_SOCKET:
        raise OSError(0, "its path is too long for a socket's")
