"""Removing models: what Parrot keeps, and what lies in the hub's cache; never another tool's files."""

import os
from dataclasses import dataclass
from pathlib import Path

from parrot_backend.engines.store import hub, lm_studio, ollama
from parrot_backend.engines.store.catalog import BUNDLED, found_elsewhere, models_folder
from parrot_backend.engines.store.conversions import find_gguf
from parrot_backend.engines.store.folders import StoreUnusableError, bytes_in, remove, turn
from parrot_backend.engines.store.kept import Kept, kept, made_of
from parrot_backend.wire.errors import InvalidRequestError, NotFoundError

_TOOLS = {ollama.PREFIX: "`ollama rm {}` removes it", lm_studio.PREFIX: "remove it in LM Studio"}


@dataclass(frozen=True, slots=True)
class Removed:
    """How many bytes were freed, and what of the model stays, in a sentence."""

    bytes: int
    stays: str = ""


def remove_model(name: str) -> Removed:
    """Remove what Parrot keeps of the model that `--model` takes by this name.

    Raises:
        NotFoundError: there is no such model here.
        InvalidRequestError: nothing of it is Parrot's; says who removes it.
    """
    made = kept()
    if name in BUNDLED:
        return Removed(_freed(_of_bundled(name, made)))
    if (model := found_elsewhere(name)) is not None:
        tool = next(tool for tool in _TOOLS if name.startswith(tool))
        how = _TOOLS[tool].format(name.removeprefix(tool))
        return _made(name, made_of(model.path, made), f"{model.path} is not Parrot's: {how}")
    place = Path(os.path.abspath(os.path.expanduser(name)))
    if place.exists() or place in made:
        place = find_gguf(place) or place
        stays = f"{place} is yours, and stays" if place.exists() else ""
        return _made(name, made_of(place, made), stays)
    if named := hub.hub_name(name):
        return _of_the_hub(named, made)
    raise _unknown(name)


def _of_bundled(name: str, made: Kept) -> list[Path]:
    folder = models_folder() / name
    if not (entries := [*made_of(folder, made), *filter(Path.exists, [folder])]):
        raise NotFoundError(f"'{name}' is not on this disk", code="model_not_found")
    return entries


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(
        f"no model '{name:.200}' is kept here: parrot models list tells which are",
        code="model_not_found",
    )


def _made(name: str, entries: list[Path], stays: str) -> Removed:
    """Remove what was made of a model whose own files are not ours."""
    if not entries:
        raise InvalidRequestError(f"Parrot keeps nothing of '{name}'; {stays}")
    return Removed(_freed(entries), stays)


def _of_the_hub(name: hub.HubName, made: Kept) -> Removed:
    """A repository goes whole, as the hub's own tools remove it."""
    there = [each for each in hub.found() if each.name.partition(":")[0] == name.repository]
    meant = hub.cached(name) if name.quant else None
    if name.quant and meant is None:
        raise _unknown(str(name))
    others = [each.name for each in there if meant is not None and each.path != meant]
    if others:
        raise InvalidRequestError(
            f"the hub's cache keeps '{name}' together with {', '.join(others)}: "
            f"parrot models rm {name.repository} removes all of them"
        )
    entries = [entry for each in there for entry in made_of(each.path, made)]
    freed = _freed(entries) + hub.removed(name.repository)
    if not freed:
        raise _unknown(str(name))
    return Removed(freed)


def _freed(entries: list[Path]) -> int:
    """How much it was. Who is making one of them is waited for."""
    freed = 0
    for entry in entries:
        with turn(entry, f"working on {entry.name}"):
            size = bytes_in(entry)
            remove(entry)
        if os.path.lexists(entry):
            raise StoreUnusableError(f"{entry} can't be removed: make it yours")
        freed += size
    return freed
