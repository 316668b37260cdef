"""The tensors behind the slots: keys and values of every layer, allocated once."""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from parrot_backend.engines.free_memory import available_memory

# By layer: one array where all layers are alike.
_Arrays = np.ndarray | list[np.ndarray]

_DEFAULT_LIMIT = 4 * 2**30
_UNKNOWN_MEMORY = 2**30
# Kernels read keys some at a time, and so beyond the last one.
_READ_BEYOND = 3


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What one layer stores per token: `kv_heads` keys of `key_dim` and values of `value_dim`."""

    kv_heads: int
    key_dim: int
    value_dim: int


def token_bytes(shapes: list[LayerShape], dtype: torch.dtype) -> int:
    """Bytes of KV memory that one token takes in all layers together."""
    numbers = sum(shape.kv_heads * (shape.key_dim + shape.value_dim) for shape in shapes)
    return numbers * dtype.itemsize


def default_kv_memory() -> int:
    """A quarter of the memory that is available now, in bytes; at most 4 GiB."""
    available = available_memory()
    return min((_UNKNOWN_MEMORY if available is None else available) // 4, _DEFAULT_LIMIT)


class KVCache:
    """Keys and values by layer and slot.

    Args:
        shapes: one per layer.
        slots: tokens that there is room for.
        dtype: of keys and values.
        device: where they lie.
    """

    def __init__(
        self, shapes: list[LayerShape], slots: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        # Head by head, as attention reads it.
        self.keys = _allocated(
            [(shape.kv_heads, slots + _READ_BEYOND, shape.key_dim) for shape in shapes],
            dtype,
            device,
        )
        self.values = _allocated(
            [(shape.kv_heads, slots, shape.value_dim) for shape in shapes], dtype, device
        )
        self.slots = slots
        self.device = device

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store keys `[kv_heads, T, key_dim]` and values of T tokens in `slots` `[T]`."""
        self.keys[layer].index_copy_(1, slots, keys)
        self.values[layer].index_copy_(1, slots, values)

    @functools.cached_property
    def arrays(self) -> tuple[_Arrays, _Arrays]:
        """Keys and values of each layer as numpy's views; float16 as the bits of int16."""
        return _arrays(self.keys), _arrays(self.values)


def _allocated(
    sizes: list[tuple[int, ...]], dtype: torch.dtype, device: torch.device
) -> Tensor | list[Tensor]:
    """A tensor for each layer, and one for all where they are alike.

    Not zeroed: the system gives pages on first use only, so a large cache starts small.
    """
    if len(set(sizes)) == 1:
        return torch.empty(len(sizes), *sizes[0], dtype=dtype, device=device)
    return [torch.empty(*size, dtype=dtype, device=device) for size in sizes]


def _arrays(stored: Tensor | list[Tensor]) -> _Arrays:
    if isinstance(stored, list):
        return [_array(tensor) for tensor in stored]
    return _array(stored)


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = (
        tensor.view(torch.int16) if tensor.dtype == torch.float16 else tensor
    ).numpy()
    return array
