"""Loading a model through transformers, with every failure as one line that says what to do."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from parrot_backend.engines.store.conversions import converted, find_gguf
from parrot_backend.engines.torch_engine.errors import ModelLoadError
from parrot_backend.engines.torch_engine.load.probe import probe
from parrot_backend.engines.torch_engine.load.quantization import Quantization, check_int8, to_int8
from parrot_backend.engines.torch_engine.memory.kv_cache import LayerShape
from parrot_backend.wire.errors import ParrotError

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that our attention runs, and what belongs to it.

    `context_length` is in tokens; `end_tokens` end a generation; `shapes` are what its layers store.
    """

    model: Any
    tokenizer: Any
    context_length: int
    end_tokens: frozenset[int]
    shapes: list[LayerShape]
    quantization: Quantization | None = None

    @property
    def vocabulary(self) -> int:
        """Tokens that the model knows: 0 up to, without, this."""
        return int(self.model.get_input_embeddings().num_embeddings)


def load_model(path: str, quantization: Quantization | None = None) -> LoadedModel:
    """Load a model, to compute in float32, and its tokenizer.

    Args:
        path: a Hugging Face folder, a GGUF file or a folder with one, or the id of a model on the
            hub. A GGUF file is converted, once.
        quantization: "int8" computes in 8 bits, for Llama-like models; the first time its
            weights are rounded, and how good that is goes to the log.

    Raises:
        ModelLoadError: it can't be loaded or isn't a model that this engine runs.
    """
    path = _folder(path)
    config = _attempt(
        f"no model at {path!r}, which must be a model's folder or its id on the hub",
        lambda: AutoConfig.from_pretrained(path),
    )
    if config.is_encoder_decoder:
        raise ModelLoadError(f"{path!r} is an encoder-decoder model: choose a decoder-only one")
    if quantization:
        check_int8(config)
    tokenizer = _load_tokenizer(path)
    model = _load_weights(path, config)
    context_length = _context_length(path, config)
    shapes = _attempt(
        f"{path!r} does not run with this engine's attention", lambda: probe(model, context_length)
    )
    if quantization:
        to_int8(model, tokenizer, shapes)
    end_tokens = _end_tokens(model, tokenizer)
    return LoadedModel(model, tokenizer, context_length, end_tokens, shapes, quantization)


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
