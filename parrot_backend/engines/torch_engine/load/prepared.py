"""What a start of a Llama-like model needs, kept in the store as it is needed.

The first start has transformers load and try a model (`examined.py`), and writes what came of it: the
weights, packed, each array in a file of its own that later starts map into memory; the tokenizer; some
numbers. These starts read nothing of the model's own files, import no transformers and copy no weights.
A file's pages are shared by all processes that map it, and the system has them back when it wants to.
"""

import functools
import gc
import hashlib
import json
import logging
import mmap
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers

from parrot_backend.engines import stages
from parrot_backend.engines.store.folders import (
    StoreUnusableError,
    cache_folder,
    forget_unused,
    turn,
    used_now,
    workshop,
)
from parrot_backend.engines.torch_engine.forward.cpu.layer import Shape
from parrot_backend.engines.torch_engine.forward.cpu.llama import (
    CpuLlama,
    Numbers,
    numbers_of,
    weights_from,
    weights_of,
)
from parrot_backend.engines.torch_engine.forward.cpu.microkernels import LANES
from parrot_backend.engines.torch_engine.load.loaded import LoadedModel, trim
from parrot_backend.engines.torch_engine.load.quality import Quality, Quantization
from parrot_backend.engines.torch_engine.load.warming import warm_up
from parrot_backend.engines.torch_engine.memory.kv_cache import LayerShape
from parrot_backend.engines.torch_engine.tokenizer import Tokenizer

if TYPE_CHECKING:
    from parrot_backend.engines.torch_engine.load.examined import Examined

logger = logging.getLogger(__name__)

_RECORD, _TOKENIZER = "model.json", "tokenizer.json"
# Another installed version may still want its own.
_SUPERSEDED_SECONDS = 86400.0
# What these make of a model is another thing in another version.
_MADE_BY = ("transformers", "tokenizers", "torch")
_SOURCES = (
    "load",
    "forward/layer_weights.py",
    "forward/cpu/llama.py",
    "forward/cpu/packing.py",
    "tokenizer.py",
)


@dataclass(frozen=True, slots=True)
class _Record:
    source: str
    numbers: Numbers
    layers: int
    context_length: int
    end_tokens: list[int]
    chat_templates: dict[str, str]
    special_tokens: dict[str, str]
    quality: Quality | None


def prepared(
    folder: Path, quantization: Quantization | None, examine: Callable[[], "Examined"]
) -> LoadedModel:
    """A Llama-like model out of the store, where it is put first unless it is there.

    Args:
        folder: the model's.
        quantization: see `load_model`.
        examine: has transformers load it.

    Raises:
        ModelLoadError: it isn't a model that this engine runs.
        StoreError: another process has been preparing it for an hour.
    """
    place = _place(folder, quantization)
    smallest = CpuLlama.smallest(int8=quantization is not None)
    warm_up(smallest, [LayerShape(1, smallest.shape.dim, smallest.shape.dim)])
    if (found := _found(place, quantization)) is not None:
        return found
    examine = functools.cache(examine)
    try:
        with turn(place, f"preparing {folder.name}"):
            if (found := _found(place, quantization)) is not None:
                return found
            stages.begin("preparing the model")
            logger.info("preparing %s (once)", folder.name)
            if not examine().has_kernels:
                return unprepared(examine())
            _write(examine(), folder, place)
    except StoreUnusableError as error:
        logger.warning("%s; so each start takes longer, and memory of its own", error.message)
        return unprepared(examine())
    examine.cache_clear()
    gc.collect()
    return _read(place, quantization)


def _found(place: Path, quantization: Quantization | None) -> LoadedModel | None:
    """What is in the store, if all of it is."""
    if not (place / _RECORD).is_file():
        return None
    try:
        loaded = _read(place, quantization)
    except Exception as error:
        logger.warning("%s is damaged and made again: %s", place, error)
        return None
    used_now(place)
    return loaded


def unprepared(examined: "Examined") -> LoadedModel:
    """A model that is not kept."""
    if examined.quality is not None:
        examined.quality.tell()
    forward = examined.forward()
    warm_up(forward, examined.shapes)
    return LoadedModel(
        forward,
        examined.tokenizer,
        examined.context_length,
        examined.end_tokens,
        examined.shapes,
        examined.quantization,
    )


def _place(folder: Path, quantization: Quantization | None) -> Path:
    """Another one for every state of the model's files, and for whatever else its content hangs on."""
    digest = hashlib.blake2b(digest_size=8)
    files = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in folder.iterdir()]
    versions = [version(package) for package in _MADE_BY]
    described = [str(folder.resolve()), sorted(files), versions, quantization, LANES]
    digest.update(repr(described).encode())
    digest.update(_sources())
    return cache_folder() / "prepared" / f"{folder.name}-{digest.hexdigest()}"


@functools.cache
def _sources() -> bytes:
    engine = Path(__file__).parents[1]
    places = [engine / name for name in _SOURCES]
    files = [f for place in places for f in (place.glob("*.py") if place.is_dir() else [place])]
    return b"".join(file.read_bytes() for file in sorted(files))


def _write(examined: "Examined", folder: Path, place: Path) -> None:
    with workshop(place) as room:
        into = room / "model"
        into.mkdir()
        numbers, weights = numbers_of(examined.model), weights_of(examined.model, _room(into))
        examined.check(CpuLlama(numbers, weights))
        examined.tokenizer.backend.save(str(into / _TOKENIZER))
        record = _Record(
            str(folder.resolve()),
            numbers,
            len(examined.shapes),
            examined.context_length,
            sorted(examined.end_tokens),
            dict(examined.tokenizer.chat_templates),
            dict(examined.tokenizer.special_tokens),
            examined.quality,
        )
        (into / _RECORD).write_text(json.dumps(asdict(record)))
        _settle(into)
    forget_unused(place.parent, functools.partial(_is_superseded, record))


def _is_superseded(record: _Record, entry: Path) -> bool:
    """Whether its model is gone, or is the same as `record`'s and was last used before today."""
    file = entry / _RECORD
    if not file.is_file():  # not of ours, or not yet
        return False
    try:
        other = json.loads(file.read_text())
        source, alike = other["source"], (other["quality"] is None) == (record.quality is None)
    except (ValueError, LookupError, TypeError):
        return True
    old = time.time() - entry.stat().st_mtime > _SUPERSEDED_SECONDS
    return not Path(source).is_dir() or (source == record.source and alike and old)


def _room(folder: Path) -> Callable[..., np.ndarray]:
    """Files in place of memory: see `forward.cpu.llama.Room`."""

    def room(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        file = folder / f"{name}.npy"
        if 0 in shape:
            np.save(file, np.empty(shape, dtype))
            return np.empty(shape, dtype)
        array = np.lib.format.open_memmap(file, "w+", dtype, shape)
        # Where there is no room for all of it, that is an error here, and a dead process later.
        if hasattr(os, "posix_fallocate"):  # not on macOS
            with file.open("r+b") as opened:
                os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
        return array

    return room


def _settle(folder: Path) -> None:
    """Have the files on the disk before they get their name: one that lost its end looks whole."""
    for file in folder.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


def _read(place: Path, quantization: Quantization | None) -> LoadedModel:
    told = json.loads((place / _RECORD).read_text())
    of_shape, *others = told["numbers"]
    shape = Shape(*of_shape)
    numbers = Numbers(shape, *others)
    maps: list[mmap.mmap] = []
    weights = weights_from(lambda name: _mapped(place / f"{name}.npy", maps))
    if told["quality"] is not None:
        Quality(**told["quality"]).tell()
    return LoadedModel(
        CpuLlama(numbers, weights),
        Tokenizer(
            tokenizers.Tokenizer.from_file(str(place / _TOKENIZER)),
            told["chat_templates"],
            told["special_tokens"],
        ),
        told["context_length"],
        frozenset(told["end_tokens"]),
        [LayerShape(shape.kv_heads, shape.dim, shape.dim)] * told["layers"],
        quantization,
        functools.partial(_rest, maps),
    )


def _mapped(file: Path, maps: list[mmap.mmap]) -> np.ndarray:
    """An array as it lies in a file; for compiled code one that could be written, as any other."""
    with file.open("rb") as opened:
        np.lib.format.read_magic(opened)
        shape, _, dtype = np.lib.format.read_array_header_1_0(opened)
        maps.append(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY))
        return np.ndarray(shape, dtype, maps[-1], opened.tell())


def _rest(maps: list[mmap.mmap]) -> None:
    """The file's pages stay in the system's cache as long as it has room, and are no process's."""
    for mapped in maps:
        mapped.madvise(mmap.MADV_DONTNEED)
    trim()
