"""How a model would run here, as far as its own configuration tells it: nothing is loaded or imported.

What a model does is tried when it is loaded, and that has the last word. Here is what it comes to for
the models that there are.
"""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from parrot_backend.engines.store.gguf_header import beginning

Outlook = Literal["fast", "yes", "no"]
"""By our own kernels; through transformers; not at all."""

FAST = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""By their `model_type`, what our kernels on CPUs compute."""

# What the kernels want a model's width and its heads' to be multiples of, on every kind of CPU.
_WIDTH, _HEAD = 32, 16
FULL_ATTENTION = {"full_attention", "attention"}
_CHANGING_ROPE = {"dynamic", "longrope"}
_DECODERS = ("ForCausalLM']", "LMHeadModel']")
_CONFIG_BYTES = 1 << 22

# What transformers calls the architectures of GGUF files that it loads and that could run here.
_GGUF = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen2moe": "qwen2_moe",
    "qwen3moe": "qwen3_moe",
    "phi3": "phi3",
    "stablelm": "stablelm",
    "starcoder2": "starcoder2",
    "nemotron": "nemotron",
}
_GGUF_NUMBERS = {
    "embedding_length": "hidden_size",
    "attention.head_count": "num_attention_heads",
    "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "context_length": "max_position_embeddings",
}


def outlook(model: Path) -> Outlook:
    """Of a Hugging Face folder or a GGUF file."""
    config = _of_folder(model) if model.is_dir() else _of_gguf(beginning(model))
    if config is None or not _is_full_attention(config) or not _is_known(config):
        return "no"
    return "fast" if _has_kernels(config) else "yes"


def _of_folder(folder: Path) -> Mapping[str, Any] | None:
    """Its configuration, unless that is one of no decoder, or of weights that can't be read."""
    try:
        with (folder / "config.json").open("rb") as file:
            config = json.loads(file.read(_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(config, dict):
        return None
    made_for = config.get("architectures")
    is_decoder = not made_for or str(made_for).endswith(_DECODERS)
    foreign = config.get("is_encoder_decoder") or config.get("quantization_config")
    return config if is_decoder and not foreign else None


def _of_gguf(fields: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What its configuration would be."""
    architecture = fields.get("general.architecture")
    kind = _GGUF.get(architecture) if isinstance(architecture, str) else None
    in_parts = fields.get("split.count", 1) not in (0, 1)
    is_mixture = kind in FAST and fields.get(f"{architecture}.expert_count", 0) != 0
    if kind is None or in_parts or is_mixture:
        return None
    numbers = {ours: fields.get(f"{architecture}.{name}") for name, ours in _GGUF_NUMBERS.items()}
    return {
        "model_type": kind,
        **{name: told for name, told in numbers.items() if told is not None},
    }


def _is_full_attention(config: Mapping[str, Any]) -> bool:
    kinds = config.get("layer_types")
    others = isinstance(kinds, list) and not FULL_ATTENTION.issuperset(map(str, kinds))
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    changes = isinstance(rope, dict) and not _CHANGING_ROPE.isdisjoint(map(str, rope.values()))
    softcap = config.get("attn_logit_softcapping") is not None
    return not (others or changes or softcap or _has_window(config))


def _has_window(config: Mapping[str, Any]) -> bool:
    """Whether its tokens see less than all that is before them."""
    window, length = config.get("sliding_window"), config.get("max_position_embeddings")
    used = config.get("use_sliding_window", config.get("model_type") not in ("qwen2", "qwen3"))
    if not used or not isinstance(window, int):
        return False
    return not isinstance(length, int) or window < length


def _is_known(config: Mapping[str, Any]) -> bool:
    """Whether transformers has the architecture: its folder says so, and needs no import."""
    spec = find_spec("transformers")
    if spec is None or not spec.submodule_search_locations:
        return True
    kind = str(config.get("model_type")).replace("-", "_")
    models = Path(next(iter(spec.submodule_search_locations))) / "models"
    return kind.isidentifier() and (models / kind).is_dir()


def _has_kernels(config: Mapping[str, Any]) -> bool:
    width, heads = config.get("hidden_size"), config.get("num_attention_heads")
    if not (isinstance(width, int) and isinstance(heads, int) and heads > 0):
        return False
    head = config.get("head_dim") or width // heads
    fits = width % _WIDTH == 0 and isinstance(head, int) and head % _HEAD == 0
    is_silu = config.get("hidden_act", "silu") == "silu"
    return str(config.get("model_type")) in FAST and is_silu and fits
