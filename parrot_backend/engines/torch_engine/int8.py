"""Linear layers with 8-bit weights and, row by row, 8-bit activations (FBGEMM).

Each row is divided by its own largest value, so that one fixed scale serves all rows and none depends
on its neighbours. The sums are whole numbers: exact, in whatever order and batch.
"""

import functools
import warnings
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from parrot_backend.engines.torch_engine.layer_weights import Affine, LayerWeights

WEIGHT_STEPS = 127


class Rows(NamedTuple):
    """Rows `[T, in]` whose largest absolute value is 1, and what to multiply them with, `[T, 1]`."""

    values: Tensor
    scale: Tensor


def int8_available() -> bool:
    """Whether this torch has FBGEMM's kernels."""
    return "fbgemm" in torch.backends.quantized.supported_engines


@functools.cache
def activation_steps() -> int:
    """Whole numbers above zero that an activation may take: 127, or 63 where the sums would saturate.

    Processors without VNNI add two products of 8 bits in 16 bits; with 7 bits in one they can't
    overflow.
    """
    product = Int8Linear(torch.ones(16, 64), steps=127)(Rows(torch.ones(1, 64), torch.ones(1, 1)))
    return 127 if torch.allclose(product, torch.full_like(product, 64.0)) else 63


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """`weight` `[out, in]` as whole numbers -127 to 127 (float), and its scales `[out, 1]`."""
    scale = weight.abs().amax(1, keepdim=True).clamp_min_(1e-30) / WEIGHT_STEPS
    return (weight / scale).round_(), scale


class Int8Linear:
    """`x @ weight.T + bias` for `Rows`; the weight is kept in 8 bits, with a scale per output."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None = None, *, steps: int | None = None
    ) -> None:
        self._steps = steps or activation_steps()
        self._bias = None if bias is None else bias.clone()
        whole, scale = quantized(weight)
        with warnings.catch_warnings():
            # Of torch's quantized tensors only this constructor is used, and no other way packs.
            warnings.simplefilter("ignore", UserWarning)
            tensor = torch._make_per_channel_quantized_tensor(
                whole.to(torch.int8), scale[:, 0].double(), torch.zeros(len(weight)).long(), 0
            )
        self._packed = torch.ops.quantized.linear_prepack(tensor, None)

    def __call__(self, rows: Rows) -> Tensor:
        """`[T, out]`."""
        product = self._product(rows.values)
        if self._bias is None:
            return product.mul_(rows.scale)
        return torch.addcmul(self._bias, product, rows.scale)

    def add(self, rows: Rows, other: Tensor) -> Tensor:
        """The result plus `other` `[T, out]`."""
        result = torch.addcmul(other, self._product(rows.values), rows.scale)
        return result if self._bias is None else result.add_(self._bias)

    def _product(self, values: Tensor) -> Tensor:
        product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        result: Tensor = product(values, 1 / self._steps, self._steps + 1, self._packed)
        return result


class Int8Projections:
    """See `Projections`."""

    def __init__(self, weights: LayerWeights, eps: float) -> None:
        self._eps = eps
        self._before, self._between = weights.before.clone(), weights.between.clone()
        self._qkv = Int8Linear(*weights.qkv)
        self._out = Int8Linear(*weights.out)
        self._gate_up = Int8Linear(*_stacked(weights.gate, weights.up))
        self._down = Int8Linear(*weights.down)

    def qkv(self, hidden: Tensor) -> Tensor:
        """See `Projections`."""
        return self._qkv(normalized_rows(hidden, self._before, self._eps))

    def out(self, attended: Tensor, hidden: Tensor) -> Tensor:
        """See `Projections`."""
        return self._out.add(scaled_rows(attended), hidden)

    def mlp(self, hidden: Tensor) -> Tensor:
        """See `Projections`."""
        both = self._gate_up(normalized_rows(hidden, self._between, self._eps))
        gate, up = both.chunk(2, dim=-1)
        return self._down.add(scaled_rows(functional.silu(gate).mul_(up)), hidden)


def scaled_rows(x: Tensor) -> Rows:
    """`x` `[T, in]` as `Rows`."""
    largest = x.abs().amax(-1, keepdim=True).clamp_min_(1e-30)
    return Rows(x / largest, largest)


def normalized_rows(hidden: Tensor, weight: Tensor, eps: float) -> Rows:
    """The RMS norm of `hidden` `[T, in]` as `Rows`: its divisor goes into the scale alone."""
    values, largest = scaled_rows(hidden * weight)
    mean = hidden.square().mean(-1, keepdim=True)
    return Rows(values, largest.mul_(mean.add_(eps).rsqrt_()))


def _stacked(first: Affine, second: Affine) -> Affine:
    weight = torch.cat([first.weight, second.weight])
    if first.bias is None or second.bias is None:
        return Affine(weight, None)
    return Affine(weight, torch.cat([first.bias, second.bias]))
