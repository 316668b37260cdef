"""The fast path for the Llama family: transformers' weights, fused and packed, and our own forward.

Norm weights are folded into the linear layers behind them; queries, keys and values come from one
product; what follows a product (SiLU, the gate, the residual) happens in it. Rotary embedding pairs
neighbours instead of halves, as one complex product: the rows of the query and key weights are
permuted for it, and dot products don't notice.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from parrot_backend.engines.torch_engine.attention import StepAttention
from parrot_backend.engines.torch_engine.linear import Linear, linear

_FAMILY = frozenset({"llama", "mistral", "qwen2", "qwen3"})


def is_llama(model: Any) -> bool:
    """Whether `LlamaForward` computes what this transformers model does."""
    config = model.config
    return config.model_type in _FAMILY and config.hidden_act == "silu"


class LlamaForward:
    """A Llama-like model's weights in the layout that this machine is fast with.

    Args:
        model: a transformers model that `is_llama`; it is not needed afterwards.
    """

    def __init__(self, model: Any) -> None:
        decoder = model.model
        # A copy: weights are views of one mapped file, and the last view keeps all of it mapped.
        self._embeddings = decoder.embed_tokens.weight.detach().clone()
        self._rotary = decoder.rotary_emb
        self._eps = float(model.config.rms_norm_eps)
        self._layers = [_Layer(layer, self._eps) for layer in decoder.layers]
        self._head = linear(model.lm_head.weight.detach() * decoder.norm.weight.detach())

    def __call__(
        self, tokens: Tensor, positions: Tensor, rows: Tensor, attention: StepAttention
    ) -> Tensor:
        """See `ForwardPass`."""
        hidden = self._embeddings[tokens]
        angles = self._angles(hidden, positions)
        for index, layer in enumerate(self._layers):
            hidden = layer(index, hidden, angles, attention)
        return self._head(_normalized(hidden[rows], self._eps))

    def _angles(self, hidden: Tensor, positions: Tensor) -> Tensor:
        """Each row's rotations `[T, 1, head_dim / 2]`, complex."""
        cos, sin = self._rotary(hidden, positions[None])
        half = cos.shape[-1] // 2
        return torch.complex(cos[0, :, :half].float(), sin[0, :, :half].float())[:, None]


class _Layer:
    def __init__(self, layer: Any, eps: float) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        dim = attention.head_dim
        before = layer.input_layernorm.weight.detach()
        between = layer.post_attention_layernorm.weight.detach()
        self._eps, self._dim, self._scaling = eps, dim, attention.scaling
        projections = [attention.q_proj, attention.k_proj, attention.v_proj]
        self._heads = [projection.weight.shape[0] // dim for projection in projections]
        parts = [
            _paired(attention.q_proj, dim),
            _paired(attention.k_proj, dim),
            _parameters(attention.v_proj),
        ]
        self._qkv = linear(torch.cat([w for w, _ in parts]) * before, _joined(parts))
        self._out = _linear(attention.o_proj)
        self._gate = linear(_parameters(mlp.gate_proj)[0] * between, mlp.gate_proj.bias)
        self._up = linear(_parameters(mlp.up_proj)[0] * between, mlp.up_proj.bias)
        self._down = _linear(mlp.down_proj)
        self._query_norm = _head_norm(attention, "q_norm")
        self._key_norm = _head_norm(attention, "k_norm")

    def __call__(
        self, index: int, hidden: Tensor, angles: Tensor, attention: StepAttention
    ) -> Tensor:
        rows = hidden.shape[0]
        qkv = self._qkv(_normalized(hidden, self._eps)).view(rows, -1, self._dim)
        query, key, value = torch.split(qkv, self._heads, dim=1)
        if self._query_norm is not None:
            query = functional.rms_norm(query, (self._dim,), self._query_norm, self._eps)
            key = functional.rms_norm(key, (self._dim,), self._key_norm, self._eps)
            rotated = _rotated(torch.cat([query, key], dim=1), angles)
        else:
            rotated = _rotated(qkv[:, : self._heads[0] + self._heads[1]], angles)
        query, key = torch.split(rotated, self._heads[:2], dim=1)
        attended = attention.attend(index, query, key, value, self._scaling)
        hidden = self._out.add(attended.reshape(rows, -1), hidden)
        normalized = _normalized(hidden, self._eps)
        return self._down.add(self._up.mul(normalized, self._gate.silu(normalized)), hidden)


def _normalized(hidden: Tensor, eps: float) -> Tensor:
    return functional.rms_norm(hidden, hidden.shape[-1:], eps=eps)


def _rotated(heads: Tensor, angles: Tensor) -> Tensor:
    """Rotary embedding of `[T, heads, dim]`, whose pairs are neighbours."""
    pairs = torch.view_as_complex(heads.float().view(*heads.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * angles).flatten(-2).to(heads.dtype)


def _parameters(module: Any) -> tuple[Tensor, Tensor | None]:
    bias = module.bias
    return module.weight.detach(), None if bias is None else bias.detach()


def _linear(module: Any) -> Linear:
    return linear(*_parameters(module))


def _paired(module: Any, dim: int) -> tuple[Tensor, Tensor | None]:
    """A projection to heads whose halves are to become pairs of neighbours."""
    weight, bias = _parameters(module)
    order = torch.arange(dim).view(2, -1).T.reshape(-1)
    rows = torch.arange(weight.shape[0]).view(-1, dim)[:, order].reshape(-1)
    return weight[rows], None if bias is None else bias[rows]


def _joined(parts: list[tuple[Tensor, Tensor | None]]) -> Tensor | None:
    biases = [bias for _, bias in parts if bias is not None]
    return torch.cat(biases) if len(biases) == len(parts) else None


def _head_norm(attention: Any, name: str) -> Tensor | None:
    norm = getattr(attention, name, None)
    if norm is None:
        return None
    weight: Tensor = norm.weight.detach()
    return weight.view(2, -1).T.reshape(-1)
