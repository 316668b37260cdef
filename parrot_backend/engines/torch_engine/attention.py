"""Attention of one step over the tree of its sequences: a shared prefix is attended once for all.

The keys that a row may see are cut into pieces: runs of slots that it shares with other rows, runs of
its own, and the chunk that it is computed in. Each piece is one dense product, for all its rows
together, and gives its log-sum-exp beside its output; by these the pieces of a row are merged exactly
(Hydragen, arXiv 2402.05099; for trees DeFT, arXiv 2404.00242):

    rows 0 1 2 3    [ shared by all                  ]      one product
    rows 0 1        [ shared by two ]                       one product
    row  0, 1, ..   [ own ]                                 together in one call
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from parrot_backend.engines.torch_engine.kernels import attention_with_lse, merge
from parrot_backend.engines.torch_engine.kv_cache import KVCache
from parrot_backend.engines.torch_engine.row_attention import RowRuns
from parrot_backend.engines.torch_engine.sharing import cut_shared
from parrot_backend.engines.torch_engine.slots import Run, count_slots, split_runs

# A product costs about 100 us to start and to merge, a row about 0.1 us for each slot that it reads.
_WORTH_A_PRODUCT = 1024
# So few rows of one sequence, a draft or the rest of a prompt, see each other row by row.
_FEW_ROWS = 16


class StepAttention(Protocol):
    """What a step brings for its layers to attend with."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
    ) -> Tensor:
        """Attention of the step's T rows.

        Args:
            layer: the layer's index.
            query: `[T, heads, key_dim]`.
            key: `[T, kv_heads, key_dim]`, of the same rows.
            value: `[T, kv_heads, value_dim]`.
            scaling: of the products; None is `key_dim ** -0.5`.

        Returns:
            `[T, heads, value_dim]`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Span:
    """`count` rows of one sequence, tokens `start` and on.

    `runs` are the slots of its tokens from 0 up to the last of these.
    """

    start: int
    count: int
    runs: list[Run]


def new_slots(spans: Sequence[Span], device: torch.device) -> Tensor:
    """`[T]`: where the keys and values of the step's rows go."""
    new = [run for span in spans for run in split_runs(span.runs, span.start)[1]]
    return torch.cat([torch.arange(start, start + length) for start, length in new]).to(device)


class _Piece(NamedTuple):
    """Runs of slots, and the rows that see all of them."""

    runs: list[Run]
    rows: slice | Tensor


class TreeAttention:
    """Stores each row's key and value in its slot, then attends piece by piece.

    Args:
        cache: the keys and values of all slots.
        spans: the step's rows, in order.
    """

    def __init__(self, cache: KVCache, spans: Sequence[Span]) -> None:
        self._cache = cache
        self._chunks: list[slice] = []
        self._pieces: list[_Piece] = []
        self._lay_out(spans)
        self._slots = new_slots(spans, cache.device)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
    ) -> Tensor:
        """See `StepAttention`."""
        self._cache.write(layer, self._slots, key.transpose(0, 1), value.transpose(0, 1))
        rows, heads, _ = query.shape
        grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], -1)
        output = grouped.new_zeros(*grouped.shape[:3], value.shape[-1])
        lse = grouped.new_full(grouped.shape[:3], -torch.inf, dtype=torch.float32)
        for c in self._chunks:
            output[c], lse[c] = _attend_chunk(grouped[c], key[c], value[c], scaling)
        for runs, members in self._pieces:
            for run in runs:
                keys, values = self._cache.read(layer, run)
                merge(output, lse, members, *_attend_run(grouped[members], keys, values, scaling))
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        self._rows.attend(grouped, keys, values, scaling, output, lse)
        return output.reshape(rows, heads, -1)

    def _lay_out(self, spans: Sequence[Span]) -> None:
        """Cut what each row sees into pieces, and leave to single rows what makes no good piece."""
        bounds = [0, *accumulate(span.count for span in spans)]
        alone: list[list[Run]] = [[] for _ in range(bounds[-1])]
        for runs, members in cut_shared([split_runs(s.runs, s.start)[0] for s in spans]):
            rows = [row for member in members for row in range(*bounds[member : member + 2])]
            if _is_dense(len(rows), count_slots(runs)):
                self._pieces.append(_Piece(runs, self._select(rows)))
            else:
                for row in rows:
                    alone[row] += runs
        for span, first, stop in zip(spans, bounds, bounds[1:], strict=False):
            if span.count > _FEW_ROWS:
                self._chunks.append(slice(first, stop))
            else:
                own = split_runs(span.runs, span.start)[1]
                for row in range(first, stop):
                    alone[row] += split_runs(own, row - first + 1)[0]
        self._rows = RowRuns(alone)

    def _select(self, indices: list[int]) -> slice | Tensor:
        """Rows that follow on one another as a slice, which is read and written without a copy."""
        if indices == list(range(indices[0], indices[0] + len(indices))):
            return slice(indices[0], indices[-1] + 1)
        return torch.tensor(indices, device=self._cache.device)


def _is_dense(rows: int, length: int) -> bool:
    """Whether `rows` that see the same slots read them sooner as one product than one by one."""
    return (rows - 1) * length >= _WORTH_A_PRODUCT


def _attend_run(
    query: Tensor, keys: Tensor, values: Tensor, scaling: float | None
) -> tuple[Tensor, Tensor]:
    """Rows `[R, kv_heads, group, dim]` over all of `keys` `[kv_heads, L, dim]`.

    Returns:
        Output `[R, kv_heads, group, dim]` and log-sum-exp `[R, kv_heads, group]`.
    """
    rows, kv_heads, group, _ = query.shape
    folded = query.transpose(0, 1).reshape(1, kv_heads, rows * group, -1)
    output, lse = attention_with_lse(folded, keys[None], values[None], scaling)
    output = output.reshape(kv_heads, rows, group, -1).transpose(0, 1)
    return output, lse.reshape(kv_heads, rows, group).transpose(0, 1)


def _attend_chunk(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None
) -> tuple[Tensor, Tensor]:
    """Rows `[R, kv_heads, group, dim]` over their own chunk's keys `[R, kv_heads, dim]`, causally."""
    rows, kv_heads, group, _ = query.shape
    keys, values = (t.transpose(0, 1).repeat_interleave(group, 0)[None] for t in (key, value))
    queries = query.reshape(rows, kv_heads * group, -1).transpose(0, 1)[None]
    output, lse = attention_with_lse(queries, keys, values, scaling, is_causal=True)
    output = output[0].transpose(0, 1).reshape(rows, kv_heads, group, -1)
    return output, lse[0].T.reshape(rows, kv_heads, group)
