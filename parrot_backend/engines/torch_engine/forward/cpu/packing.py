"""Weights in the order that the micro-kernels read them in: panels of some outputs, along the depth."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from parrot_backend.engines.torch_engine.forward.cpu.microkernels import COLUMNS, LANES
from parrot_backend.engines.torch_engine.forward.layer_weights import Affine

# Two pairs of whole numbers are multiplied at once.
_DEPTHS = 4
_ROW_LEVELS = 2**15 - 1
_LARGEST_SUM = 2**31 - 1


class Packed(NamedTuple):
    """The product `x @ weight.T + bias`, for weights `[out, depth]`, padded with zeros.

    In float32, `panels` are `[ceil(out / COLUMNS), depth, COLUMNS]`, and `scales` are 1. In 8 bits they
    are `[.., depth / 2, COLUMNS, 2]`, scaled by `scales`. Then the rows are to be whole numbers of at
    most `levels`, so many that no sum is too large for 32 bits.
    """

    panels: np.ndarray
    scales: np.ndarray
    bias: np.ndarray
    levels: float


def pack(affine: Affine) -> Packed:
    """A product's weights, as they are in float32 or in 8 bits."""
    weight, scales = affine.weight, affine.scales
    bias = _padded(torch.zeros(len(weight)) if affine.bias is None else affine.bias.float())
    if scales is None:
        return Packed(_panels(weight.float()), _padded(torch.ones(len(weight))), bias, 1.0)
    largest = int(weight.abs().sum(1, dtype=torch.int64).max())
    levels = min(_ROW_LEVELS, _LARGEST_SUM // max(largest, 1))
    padded = functional.pad(weight, (0, -weight.shape[1] % _DEPTHS))
    pairs = padded.view(len(weight), -1, 2)
    return Packed(_panels(pairs), _padded(scales), bias, float(levels))


def side_by_side(left: Affine, right: Affine) -> Affine:
    """Two products of the same rows as one, whose panels have a vector of each."""
    return Affine(
        _alternating(left.weight, right.weight),
        None if left.bias is None or right.bias is None else _alternating(left.bias, right.bias),
        None
        if left.scales is None or right.scales is None
        else _alternating(left.scales, right.scales),
    )


def _alternating(left: Tensor, right: Tensor) -> Tensor:
    return torch.stack([_cut(side, LANES) for side in (left, right)], 1).flatten(0, 2)


def _panels(weight: Tensor) -> np.ndarray:
    """`[out, depth, ...]` as `[panels, depth, COLUMNS, ...]`."""
    return _array(_cut(weight, COLUMNS).transpose(1, 2).contiguous())


def _padded(numbers: Tensor) -> np.ndarray:
    return _array(_cut(numbers, COLUMNS).flatten().clone())


def _cut(rows: Tensor, size: int) -> Tensor:
    """`[rows, ...]` as `[parts, size, ...]`, the last one filled up with zeros."""
    filled = functional.pad(rows, [0, 0] * (rows.dim() - 1) + [0, -len(rows) % size])
    return filled.view(-1, size, *rows.shape[1:])


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.numpy()
    return array
