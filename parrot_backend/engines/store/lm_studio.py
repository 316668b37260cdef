"""What LM Studio keeps on this disk: GGUF files at `PUBLISHER/REPOSITORY/`. They are only read."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from parrot_backend.engines.store.found import Found
from parrot_backend.engines.store.quants import choose, models_among
from parrot_backend.wire.errors import NotFoundError

PREFIX = "lmstudio:"

# A part starts with no dot, so that none leads out of the folder.
_NAME = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:[:/](\w[\w.-]*))?")
_HOMES = ("~/.lmstudio", "~/.cache/lm-studio")
_POINTER = "~/.lmstudio-home-pointer"


def folders() -> list[Path]:
    """Where LM Studio keeps models: as its settings say, and by default."""
    pointer = _text(Path(_POINTER).expanduser()).strip()
    homes = dict.fromkeys(Path(home).expanduser() for home in (pointer, *_HOMES) if home)
    places = [place for home in homes for place in (_downloads(home), home / "models") if place]
    return list(dict.fromkeys(places))


def model_of(text: str) -> Found:
    """The model of `PUBLISHER/REPOSITORY`, with `:QUANT` or `/FILE` where there are several.

    Raises:
        NotFoundError: LM Studio has none; says which it has.
        InvalidRequestError: it has several, and none was named.
    """
    if name := _NAME.fullmatch(text):
        for folder in folders():
            files = _files(folder / name[1])
            if files:
                file = choose(list(files), name[2], f"LM Studio's folder {folder / name[1]}")
                return Found(files[file].stem, files[file], files[file].stat().st_size)
    places = " or ".join(map(str, folders()))
    there = ", ".join(each.name for each in found()) or "none"
    raise NotFoundError(
        f"LM Studio keeps no model '{text:.200}' at {places}; it has: {there}",
        code="model_not_found",
    )


def found() -> Iterator[Found]:
    """All that LM Studio has, in the order of their names."""
    for folder in folders():
        for place in _sorted(folder, "*/*"):
            files = _files(place)
            models = models_among(list(files))
            for file in models:
                name = "/".join(place.parts[-2:]) + ("" if len(models) == 1 else f"/{file}")
                yield Found(f"{PREFIX}{name}", files[file], files[file].stat().st_size)


def _files(place: Path) -> dict[str, Path]:
    """The GGUF files of a repository by their names."""
    return {file.name: file for file in _sorted(place.resolve(), "*.gguf") if file.is_file()}


def _sorted(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def _downloads(home: Path) -> Path | None:
    """The folder that its settings name."""
    try:
        told = json.loads(_text(home / "settings.json"))
    except (ValueError, RecursionError):
        return None
    named = told.get("downloadsFolder") if isinstance(told, dict) else None
    return Path(os.path.expanduser(named)) if isinstance(named, str) and named else None


def _text(file: Path) -> str:
    try:
        with file.open(encoding="utf-8") as opened:
            return opened.read(1 << 20)
    except (OSError, ValueError):
        return ""
