"""The fast path for the Llama family: transformers' weights, fused and packed, and our own forward.

Norm weights are folded into the linear layers behind them; queries, keys and values come from one
product; what follows a product (SiLU, the gate, the residual) happens in it. Rotary embedding pairs
neighbours instead of halves, as one complex product.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from parrot_backend.engines.torch_engine.attention import StepAttention
from parrot_backend.engines.torch_engine.int8 import Int8Projections
from parrot_backend.engines.torch_engine.layer_weights import layer_weights, paired
from parrot_backend.engines.torch_engine.linear import linear
from parrot_backend.engines.torch_engine.projections import (
    FloatProjections,
    Projections,
    normalized,
)
from parrot_backend.engines.torch_engine.smoothing import LayerSmoothing, smoothed

FAMILY = frozenset({"llama", "mistral", "qwen2", "qwen3"})


def is_llama(config: Any) -> bool:
    """Whether `LlamaForward` computes what transformers' model of this configuration does."""
    return config.model_type in FAMILY and config.hidden_act == "silu"


class LlamaForward:
    """A Llama-like model's weights in the layout that this machine is fast with.

    Args:
        model: a transformers model that `is_llama`; it is not needed afterwards.
        smoothing: of each layer; with it the layers are computed in int8, the head never is.
    """

    def __init__(self, model: Any, smoothing: Sequence[LayerSmoothing] | None = None) -> None:
        decoder = model.model
        # A copy: weights are views of one mapped file, and the last view keeps all of it mapped.
        self._embeddings = decoder.embed_tokens.weight.detach().clone()
        self._rotary = decoder.rotary_emb
        self._eps = float(model.config.rms_norm_eps)
        self._layers = [
            _Layer(layer, self._eps, smoothing[index] if smoothing else None)
            for index, layer in enumerate(decoder.layers)
        ]
        self._head = linear(model.lm_head.weight.detach() * decoder.norm.weight.detach())

    def __call__(
        self, tokens: Tensor, positions: Tensor, rows: Tensor, attention: StepAttention
    ) -> Tensor:
        """See `ForwardPass`."""
        hidden = self._embeddings[tokens]
        angles = self._angles(hidden, positions)
        for index, layer in enumerate(self._layers):
            hidden = layer(index, hidden, angles, attention)
        return self._head(normalized(hidden[rows], self._eps))

    def _angles(self, hidden: Tensor, positions: Tensor) -> Tensor:
        """Each row's rotations `[T, 1, head_dim / 2]`, complex."""
        cos, sin = self._rotary(hidden, positions[None])
        half = cos.shape[-1] // 2
        return torch.complex(cos[0, :, :half].float(), sin[0, :, :half].float())[:, None]


class _Layer:
    def __init__(self, layer: Any, eps: float, smoothing: LayerSmoothing | None) -> None:
        weights, attention = layer_weights(layer), layer.self_attn
        self._eps, self._dim, self._scaling = eps, weights.dim, attention.scaling
        self._heads = list(weights.heads)
        self._projections: Projections = (
            FloatProjections(weights, eps)
            if smoothing is None
            else Int8Projections(smoothed(weights, smoothing), eps)
        )
        self._query_norm = _head_norm(attention, "q_norm")
        self._key_norm = _head_norm(attention, "k_norm")

    def __call__(
        self, index: int, hidden: Tensor, angles: Tensor, attention: StepAttention
    ) -> Tensor:
        rows = hidden.shape[0]
        qkv = self._projections.qkv(hidden).view(rows, -1, self._dim)
        query, key, value = torch.split(qkv, self._heads, dim=1)
        if self._query_norm is not None:
            query = functional.rms_norm(query, (self._dim,), self._query_norm, self._eps)
            key = functional.rms_norm(key, (self._dim,), self._key_norm, self._eps)
            rotated = _rotated(torch.cat([query, key], dim=1), angles)
        else:
            rotated = _rotated(qkv[:, : self._heads[0] + self._heads[1]], angles)
        query, key = torch.split(rotated, self._heads[:2], dim=1)
        attended = attention.attend(index, query, key, value, self._scaling)
        hidden = self._projections.out(attended.reshape(rows, -1), hidden)
        return self._projections.mlp(hidden)


def _rotated(heads: Tensor, angles: Tensor) -> Tensor:
    """Rotary embedding of `[T, heads, dim]`, whose pairs are neighbours."""
    pairs = torch.view_as_complex(heads.float().view(*heads.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * angles).flatten(-2).to(heads.dtype)


def _head_norm(attention: Any, name: str) -> Tensor | None:
    norm = getattr(attention, name, None)
    return None if norm is None else paired(norm.weight.detach(), norm.weight.shape[0])
