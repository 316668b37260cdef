"""A short trial of a model at load: what its layers store, and whether our attention is its own.

Configurations name their attention variants in many ways; what a model does is what counts.
"""

from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface

from parrot_backend.engines.store.outlook import FULL_ATTENTION
from parrot_backend.engines.torch_engine.errors import ModelLoadError
from parrot_backend.engines.torch_engine.forward.forward_pass import (
    Chunk,
    ForwardPass,
    StepModel,
)
from parrot_backend.engines.torch_engine.forward.transformers_forward import (
    IMPLEMENTATION,
    TransformersForward,
)
from parrot_backend.engines.torch_engine.memory.kv_cache import KVCache, LayerShape
from parrot_backend.engines.torch_engine.memory.slots import Run

_PROBE = "parrot_probe"
_REFUSED_OPTIONS = {
    "softcap": "soft-capped attention scores",
    "s_aux": "attention sinks",
    "position_bias": "position bias in attention scores",
}

Calls = dict[int, tuple[LayerShape, dict[str, Any]]]
_calls: ContextVar[Calls] = ContextVar("probe_calls")


def probe(model: Any, context_length: int) -> list[LayerShape]:
    """What each layer stores, in order; the model is left with our attention.

    Raises:
        ModelLoadError: the model has an attention variant that is not plain causal attention.
    """
    kind = model.config.model_type
    calls = _record(model)
    layers = model.config.get_text_config().num_hidden_layers
    if sorted(calls) != list(range(layers)):
        raise _unsupported(kind, f"{layers - len(calls)} of {layers} layers without attention")
    for _, options in calls.values():
        _check_options(kind, options, context_length)
    _check_layer_types(kind, model.config.get_text_config(), context_length)
    shapes = [calls[layer][0] for layer in range(layers)]
    model.set_attn_implementation(IMPLEMENTATION)
    check_logits(model, shapes, TransformersForward(model))
    return shapes


def _unsupported(kind: str, what: str) -> ModelLoadError:
    return ModelLoadError(
        f"architecture {kind!r} is not supported: it has {what}; choose a decoder-only model with "
        "full causal attention, or serve this one with another engine"
    )


def _record(model: Any) -> Calls:
    calls: Calls = {}
    token = _calls.set(calls)
    try:
        _logits(model, _PROBE, _some_tokens(model, 4))
    finally:
        _calls.reset(token)
    return calls


def _record_and_attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    shape = LayerShape(key.shape[1], key.shape[3], value.shape[3])
    _calls.get()[int(module.layer_idx)] = (shape, options)  # type: ignore[arg-type]
    groups = query.shape[1] // key.shape[1]
    output = functional.scaled_dot_product_attention(
        query,
        key.repeat_interleave(groups, 1),
        value.repeat_interleave(groups, 1),
        is_causal=True,
        scale=scaling,
    )
    return output.transpose(1, 2), None


AttentionInterface.register(_PROBE, _record_and_attend)


def _check_options(kind: str, options: dict[str, Any], context_length: int) -> None:
    for option, what in _REFUSED_OPTIONS.items():
        if options.get(option) is not None:
            raise _unsupported(kind, what)
    window = options.get("sliding_window")
    if window is not None and window < context_length:
        raise _unsupported(kind, f"a sliding window of {window} of {context_length} tokens")


def _check_layer_types(kind: str, config: Any, context_length: int) -> None:
    other = set(getattr(config, "layer_types", None) or ()) - FULL_ATTENTION
    if other == {"sliding_attention"} and (config.sliding_window or 0) >= context_length:
        return
    if other:
        raise _unsupported(kind, f"layers of type {', '.join(sorted(other))}")
    for rope in _rope_types(config):
        if rope in ("dynamic", "longrope"):
            raise _unsupported(kind, f"{rope} rotary embeddings, which change with the length")


def _rope_types(config: Any) -> list[str]:
    rope = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in rope.values() if isinstance(value, dict)]
    return [str(parameters.get("rope_type", "default")) for parameters in nested or [rope]]


def check_logits(model: Any, shapes: list[LayerShape], forward: ForwardPass) -> None:
    """Two sequences in one batch, each in two steps, against each alone with the model's own code.

    Raises:
        ModelLoadError: the logits differ.
    """
    tokens = _some_tokens(model, 14)
    first, second = tokens[:5], tokens[5:]
    ours = model.config._attn_implementation
    expected = torch.cat([_logits(model, "eager", part) for part in (first, second)])
    model.set_attn_implementation(ours)
    cache = KVCache(shapes, len(tokens), forward.kv_dtype, model.device)
    step_model = StepModel(forward, cache)
    step_model.forward([Chunk(first[:4], 0, [Run(0, 4)], 0), Chunk(second[:6], 0, [Run(5, 6)], 0)])
    got = step_model.forward(
        [Chunk(first[4:], 4, [Run(0, 5)], 1), Chunk(second[6:], 6, [Run(5, 9)], 1)]
    )
    tolerance = 1e-3 if model.dtype == torch.float32 else 0.05
    difference = (got - expected).abs().max()
    if not difference <= tolerance * (1 + expected.abs().max()):
        raise _unsupported(
            model.config.model_type,
            f"attention of its own kind (logits differ by {difference:.2g})",
        )


def _logits(model: Any, implementation: str, tokens: list[int]) -> Tensor:
    """Logits `[1, vocabulary]` of the last of `tokens`, with the given attention."""
    model.set_attn_implementation(implementation)
    with torch.inference_mode():
        output = model(input_ids=torch.tensor([tokens], device=model.device), use_cache=False)
    logits: Tensor = output.logits[:, -1]
    return logits


def _some_tokens(model: Any, count: int) -> list[int]:
    size = model.get_input_embeddings().num_embeddings
    return [(7 * index + 3) % size for index in range(count)]
