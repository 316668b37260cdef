"""Models of the Hugging Face hub: their names, and those that are in its cache on this disk.

A name is a repository's id, with the quantization behind a colon where it has GGUF files:
`bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M`, as llama.cpp and Ollama write it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from parrot_backend.engines.store.folders import missing_files
from parrot_backend.engines.store.found import Found
from parrot_backend.engines.store.quants import choose, label, models_among
from parrot_backend.wire.errors import NotFoundError

_NAME = re.compile(
    r"(?:(?:hf\.co|huggingface\.co)/)?([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?::(\w[\w.-]*))?"
)


@dataclass(frozen=True, slots=True)
class HubName:
    """A repository, and which of its GGUF files is meant."""

    repository: str
    quant: str | None = None

    def __str__(self) -> str:
        return f"{self.repository}:{self.quant}" if self.quant else self.repository


def hub_name(text: str) -> HubName | None:
    """What a text names on the hub, if it could."""
    match = _NAME.fullmatch(text)
    return HubName(*match.groups()) if match else None


def cached(name: HubName) -> Path | None:
    """A folder, or a GGUF file, where it is whole in the hub's cache.

    Raises:
        InvalidRequestError: there are several GGUF files, and none was named.
    """
    if (folder := _snapshot(name.repository)) is None:
        return None
    if name.quant is None and not missing_files(folder):
        return folder
    files = [file.relative_to(folder).as_posix() for file in folder.rglob("*.gguf")]
    if not models_among(files):
        return None
    try:
        return folder / choose(files, name.quant, f"'{name.repository}' in the hub's cache")
    except NotFoundError:  # the hub may have it
        return None


def found() -> Iterator[Found]:
    """The models in the hub's cache, in the order of their names: repositories, and GGUF files."""
    for each in sorted(_scanned()[1], key=lambda each: str(each.repo_id)):
        if hub_name(each.repo_id) and each.revisions:
            main = max(each.revisions, key=lambda one: ("main" in one.refs, one.last_modified))
            sizes = {file.file_path: file.size_on_disk for file in main.files}
            yield from _found_in(each.repo_id, main.snapshot_path, sizes)


def removed(repository: str) -> int:
    """Remove a repository from the hub's cache, as the hub's own tools do; how much that freed."""
    cache, repositories = _scanned()
    meant = [each for each in repositories if each.repo_id == repository]
    if not meant:
        return 0
    revisions = [revision.commit_hash for each in meant for revision in each.revisions]
    # It looks for commits, which another repository with the same history has as well.
    strategy = replace(cache, repos=frozenset(meant)).delete_revisions(*revisions)
    strategy.execute()
    return int(strategy.expected_freed_size)


def _scanned() -> tuple[Any, list[Any]]:
    """The hub's cache as its own library tells it, and the models in it; none where it is not there."""
    if find_spec("huggingface_hub") is None:  # as where only lists are wanted
        return None, []
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        cache = scan_cache_dir(constants.HF_HUB_CACHE)
    except (CacheNotFound, OSError, ValueError):
        return None, []
    return cache, [each for each in cache.repos if each.repo_type == "model"]


def _found_in(repository: str, folder: Path, sizes: Mapping[Path, int]) -> Iterator[Found]:
    if not missing_files(folder):
        yield Found(repository, folder, sum(sizes.values()))
        return
    files = {file.relative_to(folder).as_posix(): size for file, size in sizes.items()}
    for file in models_among(list(files)):
        yield Found(f"{repository}:{label(file)}", folder / file, files[file])


def _snapshot(repository: str) -> Path | None:
    """The folder of the revision that was fetched last."""
    place = place_of(repository)
    try:
        folder = place / "snapshots" / (place / "refs" / "main").read_text().strip()
    except (OSError, ValueError):
        return None
    return folder.resolve() if folder.is_dir() else None


def place_of(repository: str) -> Path:
    """Where a repository is in the hub's cache, if it is."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
