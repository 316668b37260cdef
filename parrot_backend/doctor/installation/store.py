"""What Parrot keeps on the disk: whether models are whole, and how much room is left."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from parrot_backend import DEFAULT_MODEL
from parrot_backend.doctor.findings import Finding, Level
from parrot_backend.engines.store.folders import cache_folder, missing_files
from parrot_backend.engines.store.listing import ModelListing, bundled_models

CHECK = "model store"
# A model is downloaded, converted, and prepared for this processor.
_TIMES_DOWNLOAD = 12
_LITTLE_ROOM = 2 * 10**9


def look() -> Iterator[Finding]:
    """The folders of models, and the disk they are on."""
    listed = bundled_models()
    for model in listed:
        yield _model(model)
    yield _room(listed)


def _model(model: ModelListing) -> Finding:
    if model.pulled:
        return Finding(CHECK, "ok", f"{model.name}: whole, {model.disk_bytes / 1e6:.0f} MB")
    if not model.path.exists():
        advice = (
            f"fetched at its first use ({model.download_bytes / 1e6:.0f} MB): parrot models pull"
        )
        level: Level = "warning" if model.name == DEFAULT_MODEL else "ok"
        return Finding(CHECK, level, f"{model.name}: not there", advice)
    lacks = ", ".join(missing_files(model.path))
    found = f"{model.name}: {model.path} lacks {lacks}"
    return Finding(CHECK, "fault", found, f"fetch it again: parrot models pull {model.name}")


def _room(listed: list[ModelListing]) -> Finding:
    folder = _existing(cache_folder())
    free = shutil.disk_usage(folder).free
    told = f"{free / 1e9:.1f} GB are left at {folder}"
    needed = sum(m.download_bytes for m in listed if not m.pulled and m.name == DEFAULT_MODEL)
    advice = "make room, or name a folder on another disk in PARROT_CACHE_DIR"
    if free < _TIMES_DOWNLOAD * needed or free < 10**8:
        return Finding("disk", "fault", told, advice)
    if free < _LITTLE_ROOM:
        return Finding("disk", "warning", told, advice)
    return Finding("disk", "ok", told)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that there is."""
    return next(place for place in (folder, *folder.parents) if place.is_dir())
