"""Channel scales that make a layer's activations easy to quantize (SmoothQuant, arXiv 2211.10438).

What an activation's channel is divided by, its weight's column is multiplied with. The division costs
nothing: it goes into what made the activation, a norm's weight or the rows of the product before.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from parrot_backend.engines.torch_engine.layer_weights import Affine, LayerWeights


class LayerSmoothing(NamedTuple):
    """Divisors of the inputs of one layer's products.

    Of `qkv` and of gate and up (`mlp`) `[hidden]`, of `out` `[kv_heads * dim]`, of `down`
    `[intermediate]`. The query heads of a group see the same values: they share one scale.
    """

    qkv: Tensor
    out: Tensor
    mlp: Tensor
    down: Tensor


def smoothed(weights: LayerWeights, scales: LayerSmoothing) -> LayerWeights:
    """Weights that compute the same, of activations that are divided by `scales`."""
    queries, keys, values = weights.heads
    value_rows = torch.ones((queries + keys + values) * weights.dim)
    value_rows[-values * weights.dim :] = scales.out
    return LayerWeights(
        before=weights.before / scales.qkv,
        qkv=_divided(_scaled(weights.qkv, scales.qkv), value_rows),
        out=_scaled(weights.out, spread(scales.out, queries // values, weights.dim)),
        between=weights.between / scales.mlp,
        gate=_scaled(weights.gate, scales.mlp),
        up=_divided(_scaled(weights.up, scales.mlp), scales.down),
        down=_scaled(weights.down, scales.down),
        heads=weights.heads,
        dim=weights.dim,
    )


def spread(scales: Tensor, group: int, dim: int) -> Tensor:
    """Scales of value heads `[kv_heads * dim]` for the query heads that read them."""
    return scales.view(-1, 1, dim).expand(-1, group, -1).reshape(-1)


def _scaled(linear: Affine, columns: Tensor) -> Affine:
    return Affine(linear.weight * columns, linear.bias)


def _divided(linear: Affine, rows: Tensor) -> Affine:
    bias = linear.bias
    return Affine(linear.weight / rows[:, None], None if bias is None else bias / rows)
