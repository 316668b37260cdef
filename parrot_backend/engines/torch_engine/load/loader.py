"""Loading a model, with every failure as one line that says what to do."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from parrot_backend.engines.store.conversions import converted, find_gguf
from parrot_backend.engines.store.folders import StoreError, missing_files
from parrot_backend.engines.store.hub import hub_name
from parrot_backend.engines.store.hub_fetching import fetched
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
        path: a Hugging Face folder, a GGUF file or a folder with one, or the name of a model on the
            hub, which is fetched. A GGUF file is converted, and a Llama-like model prepared, once.
        quantization: "int8" computes in 8 bits, for Llama-like models; the first time its
            weights are rounded, and how good that is goes to the log.

    Raises:
        ModelLoadError: it can't be loaded or isn't a model that this engine runs.
        StoreError: what has to be kept can't be.
    """
    loaded = _loaded(_folder(path), quantization)
    trim()
    return loaded


def _loaded(folder: Path, quantization: Quantization | None) -> LoadedModel:
    examined = partial(_examined, folder, quantization)
    return prepared(folder, quantization, examined) if _is_llama(folder) else unprepared(examined())


def _examined(folder: Path, quantization: Quantization | None) -> "Examined":
    # It imports transformers, which takes longer than a start that does not.
    from parrot_backend.engines.torch_engine.load.examined import examine

    return examine(str(folder), quantization)


def _folder(path: str) -> Path:
    """A Hugging Face folder on this disk."""
    place = Path(path).expanduser()
    try:
        if not place.exists() and (named := hub_name(path)):
            place = fetched(named)
        if gguf := find_gguf(place):
            return converted(gguf)
    except StoreError:
        raise
    except ParrotError as error:
        raise ModelLoadError(error.message) from error
    _check_folder(path, place)
    return place


def _check_folder(path: str, folder: Path) -> None:
    if not folder.exists():
        raise ModelLoadError(f"there is no folder {path!r}: check the path")
    if not folder.is_dir():
        raise ModelLoadError(
            f"{path!r} is neither a folder nor a .gguf file: name the folder that holds the model"
        )
    if not (folder / "config.json").is_file():
        raise ModelLoadError(
            f"{path!r} has no config.json: name the folder that holds the model's files"
        )
    if missing := missing_files(folder):
        raise ModelLoadError(
            f"{path!r} is not a whole model, it lacks {', '.join(missing)}: copy or fetch all of it "
            "again"
        )


def _is_llama(folder: Path) -> bool:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") in FAMILY
