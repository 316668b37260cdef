"""The models on this disk, whoever keeps them: how large they are, and how they would run here."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from parrot_backend.engines.store import hub, lm_studio, ollama
from parrot_backend.engines.store.catalog import BUNDLED, BundledModel, models_folder
from parrot_backend.engines.store.folders import bytes_in, cache_folder, missing_files
from parrot_backend.engines.store.found import Found
from parrot_backend.engines.store.kept import Kept, kept, made_of, same_place
from parrot_backend.engines.store.outlook import Outlook, outlook


@dataclass(frozen=True, slots=True)
class ModelListing:
    """A model as it stands here, by the name that `--model` takes.

    Attributes:
        source: who keeps it, or what a bundled one is fetched from.
        download_bytes: what has to be fetched, of a bundled model.
        disk_bytes: its own files; 0 until it is there.
        made_bytes: what Parrot keeps that it has made of them.
    """

    name: str
    source: str
    licence: str
    download_bytes: int
    disk_bytes: int
    made_bytes: int
    path: Path
    pulled: bool
    outlook: Outlook


def bundled_models() -> list[ModelListing]:
    """The models that Parrot fetches by itself, pulled or not."""
    found = kept()
    return [_bundled(model, found) for model in BUNDLED.values()]


def list_models() -> list[ModelListing]:
    """All: bundled ones, those of the hub's cache, Ollama's and LM Studio's, and files of the user's.

    Of the user's own files those are known that Parrot has made something of.
    """
    made = kept()
    elsewhere = (("hub", hub.found()), ("Ollama", ollama.found()), ("LM Studio", lm_studio.found()))
    known = [_listing(each, source, made) for source, found in elsewhere for each in found]
    listed = [_bundled(model, made) for model in BUNDLED.values()] + known
    return listed + [_listing(each, "file", made) for each in _files(made, listed)]


def _bundled(model: BundledModel, made: Kept) -> ModelListing:
    folder = models_folder() / model.name
    pulled = not missing_files(folder)
    return ModelListing(
        name=model.name,
        source=model.source.requirement,
        licence=model.licence,
        download_bytes=model.source.size,
        disk_bytes=bytes_in(folder) if pulled else 0,
        made_bytes=sum(map(bytes_in, made_of(folder, made))),
        path=folder,
        pulled=pulled,
        outlook=outlook(folder) if pulled else "fast",
    )


def _listing(model: Found, source: str, made: Kept) -> ModelListing:
    return ModelListing(
        name=model.name,
        source=source,
        licence="-",
        download_bytes=0,
        disk_bytes=model.size,
        made_bytes=sum(map(bytes_in, made_of(model.path, made))),
        path=model.path,
        pulled=model.whole,
        outlook=outlook(model.path) if model.whole else "no",
    )


def _files(made: Kept, listed: list[ModelListing]) -> Iterator[Found]:
    """What was made of other models than those, some of which may be gone."""
    known = {same_place(model.path) for model in listed}
    ours = cache_folder().resolve()
    for place in sorted(made):
        if place not in known and ours not in place.parents:
            yield Found(str(place), place, bytes_in(place), place.exists())
