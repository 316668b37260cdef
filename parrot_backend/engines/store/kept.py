"""What Parrot keeps that it has made of models, by the folder or GGUF file that it was made of.

Who makes it says of what: in a record (`conversions.py`, the engine's `load/prepared.py`), or in the
metadata of weights in 8 bits (`load/quantization.py`).
"""

import json
from collections import defaultdict
from pathlib import Path

from parrot_backend.engines.store.conversions import conversions
from parrot_backend.engines.store.folders import cache_folder
from parrot_backend.engines.store.safetensors_head import metadata

_PREPARED, _RECORD, _INT8 = "prepared", "model.json", "int8"
Kept = dict[Path, list[Path]]


def kept() -> Kept:
    """Files and folders by what they were made of, which may be such a folder itself, or be gone."""
    found: Kept = defaultdict(list)
    for source, folder in conversions():
        found[Path(source.path)].append(folder)
    for place, source_of in ((_PREPARED, _of_record), (_INT8, _of_weights)):
        for entry in sorted((cache_folder() / place).glob("[!.]*")):
            if origin := source_of(entry):
                found[Path(origin)].append(entry)
    return dict(found)


def made_of(model: Path, found: Kept) -> list[Path]:
    """All that was made of a model, and of the folder that a GGUF file was converted to."""
    own = found.get(same_place(model), [])
    return own + [entry for folder in own for entry in found.get(folder.resolve(), [])]


def same_place(model: Path) -> Path:
    """A folder or file as everything that is made of it names it."""
    return model.parent.resolve() / model.name if model.is_file() else model.resolve()


def _of_record(entry: Path) -> str | None:
    try:
        source = json.loads((entry / _RECORD).read_text())["source"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return source if isinstance(source, str) else None


def _of_weights(file: Path) -> str | None:
    source = metadata(file).get("source")
    return source if isinstance(source, str) else None
