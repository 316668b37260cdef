"""What attention of one step is, and how it is computed where there is no kernel for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from parrot_backend.engines.torch_engine.memory.kv_cache import KVCache
from parrot_backend.engines.torch_engine.memory.slots import Run, split_runs


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
    return _slots([r for span in spans for r in split_runs(span.runs, span.start)[1]], device)


class PlainAttention:
    """Sequence by sequence, in torch's own operations: for any device and any heads.

    Args:
        cache: the keys and values of all slots.
        spans: the step's rows, in order.
    """

    def __init__(self, cache: KVCache, spans: Sequence[Span]) -> None:
        self._cache = cache
        self._spans = spans
        self._bounds = [0, *accumulate(span.count for span in spans)]
        self._seen = [_slots(span.runs, cache.device) for span in spans]
        self._slots = new_slots(spans, cache.device)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
    ) -> Tensor:
        """See `StepAttention`."""
        self._cache.write(layer, self._slots, key.transpose(0, 1), value.transpose(0, 1))
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        results = [
            reference_attention(query[first:stop], keys[:, seen], values[:, seen], scaling)
            for first, stop, seen in zip(self._bounds, self._bounds[1:], self._seen, strict=False)
        ]
        return torch.cat(results)


def reference_attention(
    query: Tensor, keys: Tensor, values: Tensor, scaling: float | None
) -> Tensor:
    """The last rows `[R, heads, key_dim]` of a sequence over all its tokens, causally.

    Args:
        query: the rows' queries.
        keys: `[kv_heads, L, key_dim]` of all L tokens.
        values: `[kv_heads, L, value_dim]`.
        scaling: of the products; None is `key_dim ** -0.5`.

    Returns:
        `[R, heads, value_dim]`.
    """
    rows, heads, dim = query.shape
    kv_heads, length, _ = keys.shape
    grouped = query.view(rows, kv_heads, heads // kv_heads, dim).permute(1, 2, 0, 3)
    scores = (grouped @ keys[:, None].transpose(-1, -2)).float()
    scores *= dim**-0.5 if scaling is None else scaling
    seen = torch.ones(rows, length, dtype=torch.bool, device=query.device).tril(length - rows)
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1).to(values.dtype)
    return (weights @ values[:, None]).permute(2, 0, 1, 3).reshape(rows, heads, -1)


def _slots(runs: Sequence[Run], device: torch.device) -> Tensor:
    slots = [slot for start, length in runs for slot in range(start, start + length)]
    return torch.tensor(slots, dtype=torch.long, device=device)
