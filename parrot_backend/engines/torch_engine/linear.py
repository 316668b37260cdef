"""Linear layers with weights laid out for the machine, and what follows them in the same pass."""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

# oneDNN chooses its layout for a number of rows; one for small batches is as good for large ones.
_ROWS = 16


class Linear(Protocol):
    """`x @ weight.T + bias` for rows `x` `[T, in]`, and three things that are done with it."""

    def __call__(self, x: Tensor) -> Tensor:
        """`[T, out]`."""
        ...

    def add(self, x: Tensor, other: Tensor) -> Tensor:
        """The result plus `other` `[T, out]`."""
        ...

    def silu(self, x: Tensor) -> Tensor:
        """SiLU of the result."""
        ...

    def mul(self, x: Tensor, other: Tensor) -> Tensor:
        """The result times `other` `[T, out]`, element by element."""
        ...


def linear(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """A linear layer for `weight` `[out, in]`: packed where oneDNN can, else as it is."""
    packs = weight.device.type == "cpu" and weight.dtype == torch.float32
    if packs and torch._C._has_mkldnn:
        return _PackedLinear(weight, bias)
    return _PlainLinear(weight, bias)


class _PlainLinear:
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self._weight, self._bias)

    def add(self, x: Tensor, other: Tensor) -> Tensor:
        return self(x) + other

    def silu(self, x: Tensor) -> Tensor:
        return functional.silu(self(x))

    def mul(self, x: Tensor, other: Tensor) -> Tensor:
        return self(x) * other


class _PackedLinear:
    """oneDNN's blocked layout: the same sums as `F.linear`, two to three times sooner for few rows."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _ROWS)
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        return self._unary(x, "none")

    def add(self, x: Tensor, other: Tensor) -> Tensor:
        return self._binary(x, other, "add")

    def silu(self, x: Tensor) -> Tensor:
        return self._unary(x, "swish")

    def mul(self, x: Tensor, other: Tensor) -> Tensor:
        return self._binary(x, other, "mul")

    def _unary(self, x: Tensor, name: str) -> Tensor:
        pointwise = torch.ops.mkldnn._linear_pointwise
        result: Tensor = pointwise(x, self._weight, self._bias, name, [], "")
        return result

    def _binary(self, x: Tensor, other: Tensor, name: str) -> Tensor:
        pointwise = torch.ops.mkldnn._linear_pointwise.binary
        result: Tensor = pointwise(x, other, self._weight, self._bias, name)
        return result
