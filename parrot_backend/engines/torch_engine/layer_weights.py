"""A Llama layer's weights, out of transformers' modules and in the order that our forward wants.

Rotary embedding pairs neighbours instead of halves: the rows of the query and key weights are
permuted for it, and dot products don't notice.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Affine(NamedTuple):
    """`x @ weight.T + bias`, for `weight` `[out, in]`."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer; `before` and `between` are the norms' weights `[hidden]`.

    `heads` counts those of queries, keys and values, which `qkv` gives in this order, each of `dim`.
    """

    before: Tensor
    qkv: Affine
    out: Affine
    between: Tensor
    gate: Affine
    up: Affine
    down: Affine
    heads: tuple[int, int, int]
    dim: int


def layer_weights(layer: Any) -> LayerWeights:
    """The weights of one of transformers' decoder layers: views where nothing is rearranged."""
    attention, mlp = layer.self_attn, layer.mlp
    dim = attention.head_dim
    projections = attention.q_proj, attention.k_proj, attention.v_proj
    query, key, value = (projection.weight.shape[0] // dim for projection in projections)
    parts = [
        _paired(affine(attention.q_proj), dim),
        _paired(affine(attention.k_proj), dim),
        affine(attention.v_proj),
    ]
    return LayerWeights(
        before=layer.input_layernorm.weight.detach(),
        qkv=_joined(parts),
        out=affine(attention.o_proj),
        between=layer.post_attention_layernorm.weight.detach(),
        gate=affine(mlp.gate_proj),
        up=affine(mlp.up_proj),
        down=affine(mlp.down_proj),
        heads=(query, key, value),
        dim=dim,
    )


def affine(module: Any) -> Affine:
    """The parameters of a `torch.nn.Linear`."""
    bias = module.bias
    return Affine(module.weight.detach(), None if bias is None else bias.detach())


def paired(values: Tensor, dim: int) -> Tensor:
    """`values` `[heads * dim, ...]`, the halves of each head's rows made pairs of neighbours."""
    order = torch.arange(dim).view(2, -1).T.reshape(-1)
    rows = torch.arange(values.shape[0]).view(-1, dim)[:, order].reshape(-1)
    return values[rows]


def _paired(projection: Affine, dim: int) -> Affine:
    bias = projection.bias
    return Affine(paired(projection.weight, dim), None if bias is None else paired(bias, dim))


def _joined(parts: list[Affine]) -> Affine:
    biases = [part.bias for part in parts if part.bias is not None]
    weight = torch.cat([part.weight for part in parts])
    return Affine(weight, torch.cat(biases) if len(biases) == len(parts) else None)
