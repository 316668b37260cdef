"""Attention of one step over the tree of its sequences: a shared prefix is attended once for all.

The keys that a row may see are cut into pieces: runs of slots that it shares with other rows, runs of
its own, and the chunk that it is computed in. Each piece is one dense product, for all its rows
together, and gives its log-sum-exp beside its output; by these the pieces of a row are merged exactly
(Hydragen, arXiv 2402.05099; for trees DeFT, arXiv 2404.00242):

    rows 0 1 2 3    [ shared by all                  ]      one product
    rows 0 1        [ shared by two ]                       one product
    row  0, 1, ..   [ own ]                                 one each
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from parrot_backend.engines.torch_engine.kernels import attention_with_lse, merge
from parrot_backend.engines.torch_engine.kv_cache import KVCache
from parrot_backend.engines.torch_engine.sharing import cut_shared
from parrot_backend.engines.torch_engine.slots import Run, split_runs


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


class _Piece(NamedTuple):
    """One run of slots, and the rows that see all of it."""

    run: Run
    rows: slice | Tensor


class TreeAttention:
    """Stores each row's key and value in its slot, then attends piece by piece.

    Args:
        cache: the keys and values of all slots.
        spans: the step's rows, in order; those that begin the order and have one row each are the
            decoding ones, whose own token is read from its slot like those before it.
    """

    def __init__(self, cache: KVCache, spans: Sequence[Span]) -> None:
        self._cache = cache
        self._singles = next((i for i, s in enumerate(spans) if s.count > 1), len(spans))
        self._chunks: list[slice] = []
        self._first: list[Run] = []
        self._pieces: list[_Piece] = []
        self._lay_out(spans)
        new = [run for span in spans for run in split_runs(span.runs, span.start)[1]]
        slots = [torch.arange(start, start + length) for start, length in new]
        self._slots = torch.cat(slots).to(cache.device)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
    ) -> Tensor:
        """See `StepAttention`."""
        self._cache.write(layer, self._slots, key.transpose(0, 1), value.transpose(0, 1))
        rows, heads, _ = query.shape
        grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], -1)
        outputs = [self._attend_singles(layer, grouped, scaling)] if self._singles else []
        outputs += [_attend_chunk(grouped[c], key[c], value[c], scaling) for c in self._chunks]
        output, lse = (
            outputs[0] if len(outputs) == 1 else map(torch.cat, zip(*outputs, strict=True))
        )
        for run, members in self._pieces:
            keys, values = self._cache.read(layer, run)
            merge(output, lse, members, *_attend_run(grouped[members], keys, values, scaling))
        return output.reshape(rows, heads, -1)

    def _lay_out(self, spans: Sequence[Span]) -> None:
        """Cut what each row sees into pieces; a decoding row's longest own run is its first."""
        row, rows = 0, []
        for span in spans:
            rows.append(range(row, row + span.count))
            row += span.count
        singles = self._singles
        self._chunks = [slice(r.start, r.stop) for r in rows[singles:]]
        paths = [s.runs for s in spans[:singles]]
        paths += [split_runs(s.runs, s.start)[0] for s in spans[singles:]]
        shared, own = cut_shared(paths)
        for runs, members in shared:
            indices = [row for member in members for row in rows[member]]
            self._pieces += [_Piece(run, self._select(indices)) for run in runs]
        for member, runs in enumerate(own):
            runs = sorted(runs, key=lambda run: run.length)
            if member < singles:
                self._first.append(runs.pop())
            where = slice(rows[member].start, rows[member].stop)
            self._pieces += [_Piece(run, where) for run in runs]

    def _select(self, indices: list[int]) -> slice | Tensor:
        """Rows that follow on one another as a slice, which is read and written without a copy."""
        if indices == list(range(indices[0], indices[0] + len(indices))):
            return slice(indices[0], indices[-1] + 1)
        return torch.tensor(indices, device=self._cache.device)

    def _attend_singles(
        self, layer: int, query: Tensor, scaling: float | None
    ) -> tuple[Tensor, Tensor]:
        pairs = [
            attention_with_lse(query[row, None], *_batch(self._cache.read(layer, run)), scaling)
            for row, run in enumerate(self._first)
        ]
        output, lse = map(torch.cat, zip(*pairs, strict=True))
        return output, lse


def _batch(tensors: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return tensors[0][None], tensors[1][None]


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
