"""int8 on the CPU: whether it can be had, a model's weights in it and what they cost in quality.

Weights are rounded once per model, by one text of the package, and measured on another. Beside them
rows are whole numbers of up to 16 bits, so that all of the cost is that of the weights.
"""

import hashlib
import json
import logging
import os
from dataclasses import asdict
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from parrot_backend.engines.store.folders import StoreUnusableError, cache_folder, turn
from parrot_backend.engines.torch_engine.errors import ModelLoadError
from parrot_backend.engines.torch_engine.forward.cpu.llama import (
    FAMILY,
    CpuLlama,
    fits_kernels,
    is_llama,
)
from parrot_backend.engines.torch_engine.forward.forward_pass import Chunk, ForwardPass, StepModel
from parrot_backend.engines.torch_engine.forward.transformers_forward import TransformersForward
from parrot_backend.engines.torch_engine.load.gptq import install, quantize
from parrot_backend.engines.torch_engine.load.quality import Quality
from parrot_backend.engines.torch_engine.memory.kv_cache import KVCache, LayerShape
from parrot_backend.engines.torch_engine.memory.slots import Run
from parrot_backend.engines.torch_engine.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

# What is kept was found with this procedure; another number makes it be found again.
_PROCEDURE = 4
_WINDOW = 512
_SAMPLE_STRIDE = 1021


def check_int8(config: Any) -> None:
    """Refuse what there is no int8 for.

    Raises:
        ModelLoadError: it says what there is int8 for.
    """
    reason = None
    if not is_llama(config):
        reason = f"the architecture is {config.model_type!r}"
    elif not fits_kernels(config):
        reason = (
            f"hidden size {config.hidden_size} or its heads are not as wide as the kernels want"
        )
    if reason:
        raise ModelLoadError(
            f"no int8 here: {reason}. It is supported for {', '.join(sorted(FAMILY))} "
            "models: leave out quantization, or choose one of these"
        )


def to_int8(model: Any, tokenizer: Tokenizer, shapes: list[LayerShape]) -> Quality:
    """Put weights in 8 bits into a model, out of the store or found now.

    Args:
        model: of transformers; nothing but `CpuLlama` computes it afterwards.
        tokenizer: the model's.
        shapes: what its layers store.

    Returns:
        What they cost.

    Raises:
        StoreError: another process has been rounding them for an hour.
    """
    file = cache_folder() / "int8" / f"{_fingerprint(model)}.safetensors"
    if (kept := _install_kept(model, file)) is not None:
        return kept
    try:
        with turn(file, "rounding a model's weights to int8"):
            return _install_kept(model, file) or _convert(model, tokenizer, shapes, file)
    except StoreUnusableError as error:
        logger.warning("%s; so the weights are rounded at each start", error.message)
        return _convert(model, tokenizer, shapes, None)


def _convert(
    model: Any, tokenizer: Tokenizer, shapes: list[LayerShape], file: Path | None
) -> Quality:
    logger.info("rounding the weights to int8 (once, it may take minutes)")
    text = _tokens(tokenizer, "evaluation")
    before = perplexity(TransformersForward(model), shapes, text)
    rounded = quantize(model, shapes, _tokens(tokenizer, "calibration"))
    install(model, rounded)
    quality = Quality(before, perplexity(CpuLlama.of(model), shapes, text), len(text))
    if file is not None:
        _keep(rounded, quality, _source(model), file)
    return quality


def _source(model: Any) -> str:
    """The folder that transformers loaded it from, by which the store finds what was made of it."""
    return str(Path(model.config._name_or_path).resolve())


def _keep(rounded: dict[str, Tensor], quality: Quality, source: str, file: Path) -> None:
    """They took minutes: where they can't be kept they are used all the same."""
    partial = file.with_suffix(".partial")
    metadata = {"quality": json.dumps(asdict(quality)), "source": source}
    try:
        save_file(rounded, partial, metadata=metadata)
        os.replace(partial, file)
    except (OSError, SafetensorError) as error:
        logger.warning("the weights in int8 can't be kept, each start rounds them: %s", error)
        partial.unlink(missing_ok=True)


def _install_kept(model: Any, file: Path) -> Quality | None:
    try:
        with safe_open(file, framework="pt") as kept:
            quality = Quality(**json.loads(kept.metadata()["quality"]))
            rounded = {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    install(model, rounded)
    return quality


def perplexity(forward: ForwardPass, shapes: list[LayerShape], tokens: list[int]) -> float:
    """Of a text, read in windows of 512 tokens, each without what was before."""
    losses = []
    for start in range(0, len(tokens), _WINDOW):
        window = tokens[start : start + _WINDOW]
        cache = KVCache(shapes, len(window), forward.kv_dtype, torch.device("cpu"))
        chunk = Chunk(window, 0, [Run(0, len(window))], len(window))
        logits = StepModel(forward, cache).forward([chunk])[:-1].float()
        losses.append(functional.cross_entropy(logits, torch.tensor(window[1:]), reduction="none"))
    return float(torch.cat(losses).mean().exp())


def _tokens(tokenizer: Tokenizer, name: str) -> list[int]:
    return tokenizer.encode(_text(name), add_special_tokens=False)


@cache
def _text(name: str) -> str:
    folder = resources.files("parrot_backend.engines.torch_engine") / "texts"
    return (folder / f"{name}.txt").read_text(encoding="utf-8")


def _fingerprint(model: Any) -> str:
    """Of the configuration and of a sample of all weights, and of how they are rounded."""
    digest = hashlib.blake2b(digest_size=12)
    texts = [_text("calibration"), _text("evaluation")]
    digest.update(repr([_PROCEDURE, texts]).encode())
    digest.update(json.dumps(model.config.to_dict(), sort_keys=True, default=str).encode())
    for name, weight in model.named_parameters():
        digest.update(name.encode())
        digest.update(weight.detach().flatten()[::_SAMPLE_STRIDE].float().numpy().tobytes())
    return digest.hexdigest()
