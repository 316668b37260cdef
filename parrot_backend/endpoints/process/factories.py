"""How the child makes its engine. Only here is torch imported, and only when an engine is made."""

import importlib
import logging
from collections.abc import Mapping
from typing import Any, Literal

from parrot_backend.endpoints.process.recipe import Recipe
from parrot_backend.engines import stages
from parrot_backend.engines.base import Engine
from parrot_backend.engines.store.catalog import resolve_model
from parrot_backend.engines.store.generation_config import generation_config as read

logger = logging.getLogger(__name__)


def made(recipe: Recipe) -> Engine:
    """The engine of a recipe; takes seconds, and blocks meanwhile."""
    module, _, function = recipe.factory.partition(":")
    engine: Engine = getattr(importlib.import_module(module), function)(**recipe.options)
    return engine


def torch_engine(
    model: str | None = None,
    *,
    kv_memory: int | None = None,
    max_batch: int = 32,
    quantization: Literal["int8"] | None = None,
    generation_config: str = "auto",
    override_generation_config: Mapping[str, Any] | None = None,
) -> Engine:
    """Our own engine; the arguments are those of `TorchEngine.load`, and `model` as a user names it.

    The last two say how it generates where a request does not, see `engines.store.generation_config`.

    Raises:
        ParrotError: there is no such model, or it can't be fetched or loaded.
    """
    resolved = resolve_model(model)
    generation = read(resolved.path, generation_config, override_generation_config)
    logger.info("loading %s", resolved.name)
    stages.begin("loading")
    from parrot_backend.engines.torch_engine import TorchEngine

    return TorchEngine.load(
        resolved.path,
        resolved.name,
        kv_memory=kv_memory,
        max_batch=max_batch,
        quantization=quantization,
        generation_config=generation,
    )
