"""A Llama layer's weights, out of transformers' modules."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Affine(NamedTuple):
    """`x @ weight.T + bias`, for `weight` `[out, in]`; if it is in 8 bits, each output in `scales`."""

    weight: Tensor
    bias: Tensor | None
    scales: Tensor | None = None


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer; `before` and `between` are the norms' weights `[hidden]`.

    `heads` counts those of queries, keys and values, which `qkv` gives in this order, each of `dim`.
    `query_norm` and `key_norm` `[dim]` are there where queries and keys are normalized.
    """

    before: Tensor
    qkv: Affine
    query_norm: Tensor | None
    key_norm: Tensor | None
    out: Affine
    between: Tensor
    gate: Affine
    up: Affine
    down: Affine
    heads: tuple[int, int, int]
    dim: int


def layer_weights(layer: Any) -> LayerWeights:
    """The weights of one of transformers' decoder layers; views where nothing is joined."""
    attention, mlp = layer.self_attn, layer.mlp
    dim = attention.head_dim
    projections = [affine(part) for part in (attention.q_proj, attention.k_proj, attention.v_proj)]
    query, key, value = (len(projection.weight) // dim for projection in projections)
    return LayerWeights(
        before=layer.input_layernorm.weight.detach(),
        qkv=joined(projections),
        query_norm=_norm(attention, "q_norm"),
        key_norm=_norm(attention, "k_norm"),
        out=affine(attention.o_proj),
        between=layer.post_attention_layernorm.weight.detach(),
        gate=affine(mlp.gate_proj),
        up=affine(mlp.up_proj),
        down=affine(mlp.down_proj),
        heads=(query, key, value),
        dim=dim,
    )


def affine(module: Any) -> Affine:
    """The parameters of a `torch.nn.Linear`, which may have been quantized in place."""
    bias = module.bias
    return Affine(
        module.weight.detach(),
        None if bias is None else bias.detach(),
        getattr(module, "scales", None),
    )


def joined(parts: list[Affine]) -> Affine:
    """Several products of the same rows as one."""
    biases = [part.bias for part in parts if part.bias is not None]
    scales = [part.scales for part in parts if part.scales is not None]
    return Affine(
        torch.cat([part.weight for part in parts]),
        torch.cat(biases) if biases else None,
        torch.cat(scales) if scales else None,
    )


def _norm(attention: Any, name: str) -> Tensor | None:
    norm = getattr(attention, name, None)
    return None if norm is None else norm.weight.detach()
