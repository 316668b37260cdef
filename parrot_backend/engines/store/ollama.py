"""What Ollama keeps on this disk: manifests that name blobs, one of which is a plain GGUF file.

`manifests/HOST/NAMESPACE/MODEL/TAG` is JSON; the layer of the model in it names `blobs/sha256-...`. The
files are only read, and of a manifest nothing leads anywhere but to a blob beside it.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parrot_backend.engines.store.found import Found
from parrot_backend.engines.store.gguf_header import is_gguf
from parrot_backend.wire.errors import InvalidRequestError, NotFoundError

PREFIX = "ollama:"

_HOST, _NAMESPACE, _TAG = "registry.ollama.ai", "library", "latest"
_LAYER = "application/vnd.ollama.image."
_MANIFEST_BYTES = 1 << 20
_PART = re.compile(r"[A-Za-z0-9_][\w.-]*(:\d+)?")  # no `..`, and a port on hosts only
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_SERVICE = Path("/usr/share/ollama/.ollama/models")


@dataclass(frozen=True, slots=True)
class _Name:
    """As Ollama writes it, `[HOST/][NAMESPACE/]MODEL[:TAG]`; what is left out is Ollama's own."""

    host: str
    namespace: str
    model: str
    tag: str

    def __str__(self) -> str:
        """The shortest that means it."""
        places = [self.host, self.namespace]
        if self.host == _HOST:
            places = [] if self.namespace == _NAMESPACE else [self.namespace]
        return "/".join([*places, self.model]) + ("" if self.tag == _TAG else f":{self.tag}")

    @property
    def path(self) -> str:
        """Of its manifest, below a folder of manifests."""
        return f"{self.host}/{self.namespace}/{self.model}/{self.tag}"


def folders() -> list[Path]:
    """Where Ollama keeps models: OLLAMA_MODELS, else this user's folder and that of Linux' service."""
    named = os.environ.get("OLLAMA_MODELS")
    if named:
        return [Path(named).expanduser()]
    return [Path("~/.ollama/models").expanduser(), _SERVICE]


def model_of(text: str) -> Found:
    """The model that is called so, without the prefix.

    Raises:
        NotFoundError: Ollama has none; says which it has.
        InvalidRequestError: what it has is not whole, or can't be run without Ollama.
    """
    if (name := _parsed(text)) is not None:
        for folder in folders():
            manifest = folder / "manifests" / name.path
            with contextlib.suppress(OSError):  # it is another user's, or no file
                if manifest.is_file():
                    return _checked(folder, name, manifest)
    there = ", ".join(each.name for each in found()) or "none"
    raise NotFoundError(
        f"Ollama keeps no model '{text:.200}' at {' or '.join(map(str, folders()))}; it has: {there} "
        f"(`ollama pull` fetches others, and OLLAMA_MODELS names another folder)",
        code="model_not_found",
    )


def found() -> Iterator[Found]:
    """All that Ollama has that is a language model, in the order of their names."""
    seen = set()
    for folder in folders():
        for manifest in _manifests(folder):
            name = _Name(*manifest.parts[-4:])
            blob, size = _blob(folder, _layers(manifest))
            if blob is None or name in seen:
                continue
            seen.add(name)
            there = _size(blob)
            yield Found(f"{PREFIX}{name}", blob, there, there == size and is_gguf(blob))


def _manifests(folder: Path) -> list[Path]:
    try:
        paths = sorted((folder / "manifests").glob("*/*/*/*"))
    except OSError:
        return []
    return [path for path in paths if all(map(_PART.fullmatch, path.parts[-4:]))]


def _parsed(text: str) -> _Name | None:
    *places, last = text.split("/")
    model, _, tag = last.partition(":")
    unsaid = (_HOST, _NAMESPACE)[: max(0, 2 - len(places))]
    parts = (*unsaid, *places, model, tag or _TAG)
    return _Name(*parts) if len(parts) == 4 and all(map(_PART.fullmatch, parts)) else None


def _checked(folder: Path, name: _Name, manifest: Path) -> Found:
    layers = _layers(manifest)
    blob, size = _blob(folder, layers)
    if blob is None:
        raise _unusable(name, f"its manifest {manifest} names no model", again=True)
    if (there := _size(blob)) != size:
        raise _unusable(name, f"{blob} has {there:,} of {size:,} bytes", again=True)
    if not is_gguf(blob):
        raise _unusable(name, "it is kept in another form than GGUF")
    if any(kind == "adapter" for kind, _, _ in layers):
        raise _unusable(name, "it is a model with an adapter, which only Ollama applies")
    return Found(str(name), blob, size)


def _unusable(name: _Name, reason: str, *, again: bool = False) -> InvalidRequestError:
    do = f"`ollama pull {name}` fetches it again" if again else "choose another one"
    return InvalidRequestError(
        f"Ollama's model '{name}' can't be used: {reason}; {do}", code="not_a_model"
    )


def _layers(manifest: Path) -> list[tuple[str, str, int]]:
    """Kind, digest and size of each layer that is what it should be."""
    try:
        with manifest.open("rb") as file:
            told = json.loads(file.read(_MANIFEST_BYTES))
    except (OSError, ValueError, RecursionError):
        return []
    layers = told.get("layers") if isinstance(told, dict) else None
    return list(filter(None, map(_layer, layers if isinstance(layers, list) else [])))


def _layer(told: Any) -> tuple[str, str, int] | None:
    if not isinstance(told, dict):
        return None
    kind, digest, size = (told.get(field) for field in ("mediaType", "digest", "size"))
    if not (isinstance(kind, str) and isinstance(digest, str) and type(size) is int):
        return None
    hexadecimal = _DIGEST.fullmatch(digest)
    return (kind.removeprefix(_LAYER), hexadecimal[1], size) if hexadecimal else None


def _blob(folder: Path, layers: list[tuple[str, str, int]]) -> tuple[Path | None, int]:
    """The file of the model's layer, and how long that is to be."""
    for kind, digest, size in layers:
        if kind == "model":
            return folder.resolve() / "blobs" / f"sha256-{digest}", size
    return None, 0


def _size(file: Path) -> int:
    """0 where it is not there."""
    try:
        return file.stat().st_size
    except OSError:
        return 0
