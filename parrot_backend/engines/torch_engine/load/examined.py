"""What transformers makes of a model's files, tried and found to be what this engine runs.

It takes seconds to import and to load, so that it is asked once: see `prepared.py`.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from parrot_backend.engines.store.safetensors_head import cut_off
from parrot_backend.engines.torch_engine.errors import ModelLoadError
from parrot_backend.engines.torch_engine.forward.cpu.llama import CpuLlama, fits_kernels, is_llama
from parrot_backend.engines.torch_engine.forward.forward_pass import ForwardPass
from parrot_backend.engines.torch_engine.forward.transformers_forward import TransformersForward
from parrot_backend.engines.torch_engine.load.probe import check_logits, probe
from parrot_backend.engines.torch_engine.load.quality import Quality, Quantization
from parrot_backend.engines.torch_engine.load.quantization import check_int8, to_int8
from parrot_backend.engines.torch_engine.memory.kv_cache import LayerShape
from parrot_backend.engines.torch_engine.tokenizer import Tokenizer

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Examined:
    """A model of transformers that our attention runs, and what belongs to it; see `LoadedModel`."""

    model: Any
    tokenizer: Tokenizer
    context_length: int
    end_tokens: frozenset[int]
    shapes: list[LayerShape]
    quality: Quality | None = None

    @property
    def quantization(self) -> Quantization | None:
        """How its weights were rounded."""
        return None if self.quality is None else "int8"

    @property
    def has_kernels(self) -> bool:
        """Whether `CpuLlama` computes the same."""
        return is_llama(self.model.config) and fits_kernels(self.model.config)

    def forward(self) -> ForwardPass:
        """The fastest forward pass that there is for it, in memory of its own."""
        return CpuLlama.of(self.model) if self.has_kernels else TransformersForward(self.model)

    def check(self, forward: ForwardPass) -> None:
        """Compare what our code computes of its weights with what its own does.

        In 8 bits that is the model's no more; its perplexity was measured.

        Raises:
            ModelLoadError: they differ.
        """
        if self.quality is None:
            check_logits(self.model, self.shapes, forward)


def examine(path: str, quantization: Quantization | None = None) -> Examined:
    """Load a model, to compute in float32 or as quantized, and its tokenizer, and try them.

    Raises:
        ModelLoadError: it can't be loaded or isn't a model that this engine runs.
    """
    # Of a local model that takes a second.
    transformers_logging.disable_progress_bar()
    config = _attempt(
        f"no model at {path!r}, which must be a model's folder or its id on the hub",
        lambda: AutoConfig.from_pretrained(path),
    )
    if config.is_encoder_decoder:
        raise ModelLoadError(f"{path!r} is an encoder-decoder model: choose a decoder-only one")
    if quantization:
        check_int8(config)
    if damaged := cut_off(Path(path)):
        raise ModelLoadError(f"{path!r} can't be loaded: {damaged}; fetch it again")
    made = _load_tokenizer(path)
    tokenizer, model = Tokenizer.of(made), _load_weights(path, config)
    context_length = _context_length(path, config)
    shapes = _attempt(
        f"{path!r} does not run with this engine's attention", lambda: probe(model, context_length)
    )
    quality = to_int8(model, tokenizer, shapes) if quantization else None
    ends = _end_tokens(model, made)
    return Examined(model, tokenizer, context_length, ends, shapes, quality)


def _attempt(what: str, load: Callable[[], _T]) -> _T:
    """Whatever goes wrong in the libraries below becomes one line."""
    try:
        return load()
    except ModelLoadError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelLoadError(f"{what}: {lines[0]}") from error


def _load_tokenizer(path: str) -> Any:
    tokenizer = _attempt(
        f"{path!r} has no tokenizer that can be loaded", lambda: AutoTokenizer.from_pretrained(path)
    )
    if not tokenizer.is_fast:
        raise ModelLoadError(f"{path!r} has no tokenizer that can be loaded: add tokenizer.json")
    if not tokenizer.chat_template:
        raise ModelLoadError(
            f"{path!r} has no chat template: choose an instruction-tuned model, or add "
            "chat_template.jinja to its folder"
        )
    return tokenizer


def _load_weights(path: str, config: Any) -> Any:
    model = _attempt(
        f"{path!r} is not a decoder-only causal language model that can be loaded",
        lambda: AutoModelForCausalLM.from_pretrained(path, config=config, dtype=torch.float32),
    )
    if not model._supports_attention_backend:
        raise ModelLoadError(
            f"architecture {config.model_type!r} is not supported: transformers lets nobody replace "
            "its attention; choose another model, or serve this one with another engine"
        )
    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        raise ModelLoadError(f"architecture {config.model_type!r} is not supported: choose another")
    return model.eval()


def _context_length(path: str, config: Any) -> int:
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(length, int):
        raise ModelLoadError(f"{path!r} names no context length: add max_position_embeddings")
    return length


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    named = model.generation_config.eos_token_id
    tokens = named if isinstance(named, list) else [named]
    return frozenset(token for token in [*tokens, tokenizer.eos_token_id] if token is not None)
