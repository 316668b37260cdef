"""A forward pass of our own for the Llama family, in torch, for devices other than the CPU.

transformers' weights, fused: norm weights are folded into the linear layers behind them, queries, keys
and values come from one product, gate and up from another. Rotary embedding pairs neighbours instead
of halves, as one complex product.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from parrot_backend.engines.torch_engine.attention import StepAttention
from parrot_backend.engines.torch_engine.kv_cache import KVCache
from parrot_backend.engines.torch_engine.layer_weights import Affine, joined, layer_weights
from parrot_backend.engines.torch_engine.model import Step
from parrot_backend.engines.torch_engine.step_attention import step_attention

FAMILY = frozenset({"llama", "mistral", "qwen2", "qwen3"})


def is_llama(config: Any) -> bool:
    """Whether `LlamaForward` computes what transformers' model of this configuration does."""
    return config.model_type in FAMILY and config.hidden_act == "silu"


class LlamaForward:
    """A Llama-like model's weights, fused.

    Args:
        model: a transformers model that `is_llama`; it is not needed afterwards.
    """

    def __init__(self, model: Any) -> None:
        decoder = model.model
        # A copy: weights are views of one mapped file, and the last view keeps all of it mapped.
        self._embeddings: Tensor = decoder.embed_tokens.weight.detach().clone()
        self._rotary = decoder.rotary_emb
        self._eps = float(model.config.rms_norm_eps)
        self._layers = [_Layer(layer, self._eps) for layer in decoder.layers]
        self._head = model.lm_head.weight.detach() * decoder.norm.weight.detach()

    @property
    def kv_dtype(self) -> torch.dtype:
        """See `ForwardPass`."""
        return self._embeddings.dtype

    def __call__(self, step: Step, cache: KVCache) -> Tensor:
        """See `ForwardPass`."""
        tokens, positions, rows = (
            torch.tensor(numbers, dtype=torch.long, device=cache.device)
            for numbers in (step.tokens, step.positions, step.rows)
        )
        attention = step_attention(cache, step.spans)
        hidden = self._embeddings[tokens]
        angles = self._angles(hidden, positions)
        for index, layer in enumerate(self._layers):
            hidden = layer(index, hidden, angles, attention)
        return functional.linear(_normalized(hidden[rows], self._eps), self._head)

    def _angles(self, hidden: Tensor, positions: Tensor) -> Tensor:
        """Each row's rotations `[T, 1, head_dim / 2]`, complex."""
        cos, sin = self._rotary(hidden, positions[None])
        half = cos.shape[-1] // 2
        return torch.complex(cos[0, :, :half].float(), sin[0, :, :half].float())[:, None]


class _Layer:
    def __init__(self, layer: Any, eps: float) -> None:
        weights = layer_weights(layer)
        queries, keys, _ = weights.heads
        self._eps, self._dim, self._scaling = eps, weights.dim, layer.self_attn.scaling
        self._heads = list(weights.heads)
        self._qkv = _after_norm(_paired(weights.qkv, queries + keys, weights.dim), weights.before)
        self._out, self._down = weights.out, weights.down
        self._gate_up = _after_norm(joined([weights.gate, weights.up]), weights.between)
        self._norms = [
            None if norm is None else _neighbours(norm, weights.dim)
            for norm in (weights.query_norm, weights.key_norm)
        ]

    def __call__(
        self, index: int, hidden: Tensor, angles: Tensor, attention: StepAttention
    ) -> Tensor:
        rows = hidden.shape[0]
        qkv = functional.linear(_normalized(hidden, self._eps), *self._qkv[:2])
        query, key, value = torch.split(qkv.view(rows, -1, self._dim), self._heads, dim=1)
        query, key = (
            part if norm is None else functional.rms_norm(part, (self._dim,), norm, self._eps)
            for part, norm in zip((query, key), self._norms, strict=True)
        )
        rotated = _rotated(torch.cat([query, key], dim=1), angles)
        query, key = torch.split(rotated, self._heads[:2], dim=1)
        attended = attention.attend(index, query, key, value, self._scaling)
        hidden = hidden + functional.linear(attended.reshape(rows, -1), *self._out[:2])
        gate, up = functional.linear(_normalized(hidden, self._eps), *self._gate_up[:2]).chunk(
            2, -1
        )
        return hidden + functional.linear(functional.silu(gate) * up, *self._down[:2])


def _normalized(hidden: Tensor, eps: float) -> Tensor:
    """RMS norm of each row, without a weight."""
    return functional.rms_norm(hidden, hidden.shape[-1:], eps=eps)


def _after_norm(affine: Affine, norm: Tensor) -> Affine:
    return Affine(affine.weight * norm, affine.bias)


def _paired(affine: Affine, heads: int, dim: int) -> Affine:
    """The halves of each of the first `heads` heads' rows made pairs of neighbours."""

    def pair(rows: Tensor) -> Tensor:
        return torch.cat([_neighbours(rows[: heads * dim], dim), rows[heads * dim :]])

    return Affine(pair(affine.weight), None if affine.bias is None else pair(affine.bias))


def _neighbours(rows: Tensor, dim: int) -> Tensor:
    order = torch.arange(dim, device=rows.device).view(2, -1).T.reshape(-1)
    return rows.view(-1, dim, *rows.shape[1:])[:, order].flatten(0, 1)


def _rotated(heads: Tensor, angles: Tensor) -> Tensor:
    """Rotary embedding of `[T, heads, dim]`, whose pairs are neighbours."""
    pairs = torch.view_as_complex(heads.float().view(*heads.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * angles).flatten(-2).to(heads.dtype)
