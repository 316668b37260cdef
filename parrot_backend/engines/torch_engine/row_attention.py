"""Attention of single rows over runs of slots of their own, all rows in one call.

A row alone makes a matrix product of almost nothing, and what a product costs to start is most of it;
here a batch of rows starts once, and reads each key and value where it lies.
"""

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from parrot_backend.engines.torch_engine.kernels import merge, reference_attention
from parrot_backend.engines.torch_engine.slots import Run

# torch's own threads: a second team on the same cores would make every wait of either a sleep.
numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]
numba.config.NUMBA_NUM_THREADS = torch.get_num_threads()

# Sums may be taken in any order, as vectors do; infinities stay what they are.
_FAST = {"reassoc", "contract", "arcp", "nsz"}
# Scores of so many keys are held at once: they, and the keys, stay in the nearest cache.
_TILE = 64


class RowRuns:
    """Which runs of slots each of R rows sees.

    Args:
        runs: one list for each row.

    Use it in the thread that makes it: the number of threads is set for that one.
    """

    def __init__(self, runs: Sequence[list[Run]]) -> None:
        self._runs = runs
        self._bounds = np.cumsum([0, *map(len, runs)])
        flat = [run for row in runs for run in row]
        self._flat = np.array(flat, dtype=np.int64).reshape(-1, 2)
        numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))

    def attend(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        scaling: float | None,
        output: Tensor,
        lse: Tensor,
    ) -> None:
        """Attend, and merge what comes out into what the rows have seen already, in place.

        Args:
            query: `[R, kv_heads, group, key_dim]`.
            keys: `[kv_heads, slots, key_dim]`.
            values: `[kv_heads, slots, value_dim]`.
            scaling: of the products; None is `key_dim ** -0.5`.
            output: `[R, kv_heads, group, value_dim]`.
            lse: `[R, kv_heads, group]`, log-sum-exp of the scores seen; minus infinity for none.
        """
        if not self._flat.size:
            return
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        if query.device.type == "cpu" and query.dtype == torch.float32:
            tensors = [t.numpy() for t in (query.contiguous(), keys, values)]
            _attend(
                *tensors, self._bounds, self._flat, np.float32(scale), output.numpy(), lse.numpy()
            )
        else:
            self._attend_by_row(query, keys, values, scale, output, lse)

    def _attend_by_row(
        self, query: Tensor, keys: Tensor, values: Tensor, scale: float, output: Tensor, lse: Tensor
    ) -> None:
        for row, runs in enumerate(self._runs):
            for start, length in runs:
                seen = slice(start, start + length)
                result = reference_attention(query[row], keys[:, seen], values[:, seen], scale)
                merge(output, lse, slice(row, row + 1), *(part[None] for part in result))


@numba.njit(inline="always", fastmath=_FAST)  # type: ignore[untyped-decorator]
def _exp(x: Any) -> Any:
    """The exponential of a float32 to 3 units in the last place, in steps that vectors can take.

    2 to a whole power, which is an exponent's bits, times a polynomial (Cephes' `expf`).
    """
    x = min(max(x, np.float32(-87)), np.float32(88))
    power = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    rest = x - power * np.float32(0.693359375)
    rest -= power * np.float32(-2.12194440e-4)
    sum_ = np.float32(1.9875691500e-4)
    sum_ = sum_ * rest + np.float32(1.3981999507e-3)
    sum_ = sum_ * rest + np.float32(8.3334519073e-3)
    sum_ = sum_ * rest + np.float32(4.1665795894e-2)
    sum_ = sum_ * rest + np.float32(1.6666665459e-1)
    sum_ = sum_ * rest + np.float32(5.0000001201e-1)
    sum_ = sum_ * rest * rest + rest + np.float32(1)
    return sum_ * np.int32((np.int32(power) + 127) << np.int32(23)).view(np.float32)


@numba.njit(parallel=True, cache=True, fastmath=_FAST)  # type: ignore[untyped-decorator]
def _attend(
    query: Any, keys: Any, values: Any, bounds: Any, runs: Any, scale: Any, output: Any, lse: Any
) -> None:
    """See `RowRuns.attend`; a row's runs are `runs[bounds[row]:bounds[row + 1]]`.

    Softmax online (Milakov and Gimelshein, arXiv 1805.02867): `peak` is the largest score so far, and
    `total` the sum of the exponentials relative to it.
    """
    rows, kv_heads, group, key_dim = query.shape
    dim = values.shape[2]
    for unit in numba.prange(kv_heads * rows):
        head, row = unit // rows, unit % rows
        scores = np.empty((group, _TILE), np.float32)
        peak = lse[row, head].copy()
        total = np.ones(group, np.float32)
        for run in range(bounds[row], bounds[row + 1]):
            stop = runs[run, 0] + runs[run, 1]
            for first in range(runs[run, 0], stop, _TILE):
                count = min(_TILE, stop - first)
                for i in range(count):
                    for g in range(group):
                        score = np.float32(0)
                        for d in range(key_dim):
                            score += query[row, head, g, d] * keys[head, first + i, d]
                        scores[g, i] = score * scale
                for g in range(group):
                    highest = peak[g]
                    for i in range(count):
                        highest = max(highest, scores[g, i])
                    fade = _exp(peak[g] - highest)
                    peak[g] = highest
                    total[g] *= fade
                    for d in range(dim):
                        output[row, head, g, d] *= fade
                    for i in range(count):
                        weight = _exp(scores[g, i] - highest)
                        scores[g, i] = weight
                        total[g] += weight
                for i in range(count):
                    for g in range(group):
                        weight = scores[g, i]
                        for d in range(dim):
                            output[row, head, g, d] += weight * values[head, first + i, d]
        for g in range(group):
            lse[row, head, g] = peak[g] + np.log(total[g])
            for d in range(dim):
                output[row, head, g, d] /= total[g]
