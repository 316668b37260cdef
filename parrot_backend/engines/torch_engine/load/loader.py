"""Loading a model, with every failure as one line that says what to do."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from parrot_backend.engines.store.conversions import converted, find_gguf
from parrot_backend.engines.store.folders import missing_files
from parrot_backend.engines.torch_engine.errors import ModelLoadError
from parrot_backend.engines.torch_engine.forward.cpu.llama import FAMILY
from parrot_backend.engines.torch_engine.load.loaded import LoadedModel, trim
from parrot_backend.engines.torch_engine.load.prepared import prepared, unprepared
from parrot_backend.engines.torch_engine.load.quality import Quantization
from parrot_backend.wire.errors import ParrotError

if TYPE_CHECKING:
    from parrot_backend.engines.torch_engine.load.examined import Examined


def load_model(path: str, quantization: Quantization | None = None) -> LoadedModel:
    """Load a model, to compute in float32, and its tokenizer.

    Args:
        path: a Hugging Face folder, a GGUF file or a folder with one, or the id of a model on the
            hub. A GGUF file is converted, and a Llama-like model prepared, once.
        quantization: "int8" computes in 8 bits, for Llama-like models; the first time its
            weights are rounded, and how good that is goes to the log.

    Raises:
        ModelLoadError: it can't be loaded or isn't a model that this engine runs.
        StoreError: what has to be kept can't be.
    """
    loaded = _loaded(_folder(path), quantization)
    trim()
    return loaded


def _loaded(path: str, quantization: Quantization | None) -> LoadedModel:
    place = _local(path)
    if place is not None and _is_llama(place):
        return prepared(place, quantization, partial(_examined, path, quantization))
    examined = _examined(path, quantization)
    fetched = None if place is not None else _local(path)
    if fetched is None or not examined.has_kernels:
        return unprepared(examined)
    return prepared(fetched, quantization, lambda: examined)


def _examined(path: str, quantization: Quantization | None) -> "Examined":
    # It imports transformers, which takes longer than a start that does not.
    from parrot_backend.engines.torch_engine.load.examined import examine

    return examine(path, quantization)


def _folder(path: str) -> str:
    """A Hugging Face folder or a hub id."""
    try:
        gguf = find_gguf(path)
        if gguf:
            return str(converted(gguf))
    except ParrotError as error:
        raise ModelLoadError(error.message) from error
    _check_folder(path)
    return path


def _check_folder(path: str) -> None:
    folder = Path(path)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelLoadError(
                f"{path!r} has no config.json: name the folder that holds the model's files"
            )
    elif folder.exists():
        raise ModelLoadError(
            f"{path!r} is neither a folder nor a .gguf file: name the folder that holds the model"
        )
    elif folder.is_absolute() or path.startswith((".", "~")):
        raise ModelLoadError(f"there is no folder {path!r}: check the path")


def _local(path: str) -> Path | None:
    """The folder that a path names, or that a model of the hub was fetched to."""
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(path, local_files_only=True))
    except (OSError, ValueError):  # there is none, or it is no id
        return None
    return None if missing_files(folder) else folder


def _is_llama(folder: Path) -> bool:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") in FAMILY
