"""int8 on the CPU: whether it can be had, the smoothing of a model and what it costs in quality.

Both are found once per model, on two texts that belong to the package, and kept in the store.
"""

import hashlib
import json
import logging
import os
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from parrot_backend.engines.store import cache_folder, turn
from parrot_backend.engines.torch_engine.calibration import calibrate, perplexity
from parrot_backend.engines.torch_engine.errors import ModelLoadError
from parrot_backend.engines.torch_engine.int8 import activation_steps, int8_available
from parrot_backend.engines.torch_engine.llama import FAMILY, LlamaForward, is_llama
from parrot_backend.engines.torch_engine.smoothing import LayerSmoothing
from parrot_backend.engines.torch_engine.transformers_forward import TransformersForward

logger = logging.getLogger(__name__)

Quantization = Literal["int8"]

# What is kept was found with this procedure; another number makes it be found again.
_PROCEDURE = 1
_TOLERANCE = 0.01
_SAMPLE_STRIDE = 1021


@dataclass(frozen=True, slots=True)
class Quality:
    """Perplexities of a text of `tokens`."""

    float32: float
    int8: float
    tokens: int

    @property
    def loss(self) -> float:
        """By how much int8 is worse, as a share."""
        return self.int8 / self.float32 - 1

    def __str__(self) -> str:
        return (
            f"perplexity {self.int8:.2f} in int8, {self.float32:.2f} in float32 ({self.loss:+.1%}), "
            f"on {self.tokens} tokens of text"
        )


def check_int8(config: Any, device: torch.device) -> None:
    """Refuse what there is no int8 for.

    Raises:
        ModelLoadError: it says what there is int8 for.
    """
    reason = None
    if device.type != "cpu":
        reason = f"the model is to run on {device.type}"
    elif not int8_available():
        reason = "this build of torch has no FBGEMM kernels (x86 has them)"
    elif not is_llama(config):
        reason = f"the architecture is {config.model_type!r}"
    if reason:
        raise ModelLoadError(
            f"no int8 here: {reason}. It is supported on x86 CPUs for {', '.join(sorted(FAMILY))} "
            "models: leave out quantization, or choose one of these"
        )


def int8_smoothing(model: Any, tokenizer: Any) -> list[LayerSmoothing]:
    """The smoothing of a model, out of the store or found now; its quality is logged.

    Raises:
        StoreError: another process has been looking for it for an hour.
    """
    file = cache_folder() / "int8" / f"{_fingerprint(model)}.safetensors"
    kept = _read(file)
    if kept is None:
        with turn(file, "calibrating a model for int8"):
            kept = _read(file) or _find(model, tokenizer, file)
    smoothing, quality = kept
    logger.log(logging.INFO if quality.loss <= _TOLERANCE else logging.WARNING, "%s", quality)
    return smoothing


def _find(model: Any, tokenizer: Any, file: Path) -> tuple[list[LayerSmoothing], Quality]:
    logger.info("calibrating for int8 (once)")
    smoothing = calibrate(model, _tokens(tokenizer, "calibration"))
    tokens = _tokens(tokenizer, "evaluation")
    quality = Quality(
        float32=perplexity(TransformersForward(model), tokens),
        int8=perplexity(LlamaForward(model, smoothing), tokens),
        tokens=len(tokens),
    )
    _write(file, smoothing, quality)
    return smoothing, quality


def _tokens(tokenizer: Any, name: str) -> list[int]:
    return list(tokenizer.encode(_text(name), add_special_tokens=False))


@cache
def _text(name: str) -> str:
    folder = resources.files("parrot_backend.engines.torch_engine") / "texts"
    return (folder / f"{name}.txt").read_text(encoding="utf-8")


def _fingerprint(model: Any) -> str:
    """Of the configuration and of a sample of all weights, and of how the smoothing is found."""
    digest = hashlib.blake2b(digest_size=12)
    texts = [_text("calibration"), _text("evaluation")]
    digest.update(repr([_PROCEDURE, activation_steps(), texts]).encode())
    digest.update(json.dumps(model.config.to_dict(), sort_keys=True, default=str).encode())
    for name, weight in model.named_parameters():
        digest.update(name.encode())
        digest.update(weight.detach().flatten()[::_SAMPLE_STRIDE].float().numpy().tobytes())
    return digest.hexdigest()


def _write(file: Path, smoothing: list[LayerSmoothing], quality: Quality) -> None:
    tensors = {
        f"{index}.{name}": scales.contiguous()
        for index, layer in enumerate(smoothing)
        for name, scales in layer._asdict().items()
    }
    partial = file.with_suffix(".partial")
    save_file(tensors, partial, metadata={"quality": json.dumps(asdict(quality))})
    os.replace(partial, file)


def _read(file: Path) -> tuple[list[LayerSmoothing], Quality] | None:
    try:
        with safe_open(file, framework="pt") as kept:
            quality = Quality(**json.loads(kept.metadata()["quality"]))
            layers = len(kept.keys()) // len(LayerSmoothing._fields)
            smoothing = [
                LayerSmoothing(*(kept.get_tensor(f"{i}.{name}") for name in LayerSmoothing._fields))
                for i in range(layers)
            ]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    return smoothing, quality
