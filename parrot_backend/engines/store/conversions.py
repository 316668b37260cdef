"""GGUF files that the user has: each is converted once, and the folder kept until the file changes.

transformers takes half a minute for what it loads from the converted folder in a second.
"""

import hashlib
import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from parrot_backend.engines import stages
from parrot_backend.engines.store.folders import cache_folder, missing_files, turn, workshop
from parrot_backend.engines.store.gguf import GGUFError, convert
from parrot_backend.engines.store.gguf_header import is_gguf
from parrot_backend.engines.store.quants import models_among

logger = logging.getLogger(__name__)

_SOURCE = "gguf_source.json"


@dataclass(frozen=True, slots=True)
class GGUFSource:
    """The file that a folder was made of, as it was then."""

    path: str
    size: int
    modified_ns: int


def find_gguf(path: str | Path) -> Path | None:
    """The GGUF file that `path` is, or the only model in a folder; None where there is none.

    A folder with a config.json is a Hugging Face model, whatever else is in it. A link keeps its name:
    what it leads to, as in the hub's cache, may have one that says nothing.

    Raises:
        GGUFError: the folder holds several, so that one has to be named.
    """
    place = Path(path).expanduser()
    if is_gguf(place):
        return place.parent.resolve() / place.name
    if not place.is_dir() or (place / "config.json").exists():
        return None
    files = models_among([file.name for file in place.glob("*.gguf")])
    if len(files) > 1:
        names = ", ".join(files)
        raise GGUFError(f"the folder '{place}' holds {len(files)} GGUF files, name one: {names}")
    return place.resolve() / files[0] if files else None


def converted(gguf: Path) -> Path:
    """The Hugging Face folder of a GGUF file, made now unless it is there; processes take turns.

    Raises:
        GGUFError: the file can't be converted.
        StoreError: another process has been converting it for an hour.
    """
    stat = gguf.stat()
    source = GGUFSource(str(gguf), stat.st_size, stat.st_mtime_ns)
    key = hashlib.sha256(os.fsencode(gguf)).hexdigest()[:12]
    folder = _store() / f"{gguf.stem}-{key}"
    if _source(folder) != source:
        with turn(folder, f"converting {gguf.name}"):
            if _source(folder) != source:
                _install(gguf, source, folder)
    return folder


def conversions() -> list[tuple[GGUFSource, Path]]:
    """What was converted, by name, and where it is."""
    folders = sorted(_store().glob("[!.]*")) if _store().is_dir() else []
    known = ((_source(folder), folder) for folder in folders)
    return [(source, folder) for source, folder in known if source is not None]


def _store() -> Path:
    return cache_folder() / "gguf"


def _install(gguf: Path, source: GGUFSource, folder: Path) -> None:
    logger.info("converting %s (once)", gguf.name)
    stages.begin("converting")
    with workshop(folder) as room:
        convert(gguf, room / "model")
        (room / "model" / _SOURCE).write_text(json.dumps(asdict(source)))


def _source(folder: Path) -> GGUFSource | None:
    try:
        source = GGUFSource(**json.loads((folder / _SOURCE).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return None if missing_files(folder) else source
