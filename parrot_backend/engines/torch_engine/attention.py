"""Attention of one step: every row attends to the slots of its own sequence.

transformers calls `attend` for each layer through its attention interface; what belongs to the step
reaches it through a context variable, as not every architecture passes keyword arguments down.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface

from parrot_backend.engines.torch_engine.kv_cache import KVCache
from parrot_backend.engines.torch_engine.slots import Run, split_runs

IMPLEMENTATION = "parrot"


class StepAttention(Protocol):
    """What a step brings for its layers to attend with."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
    ) -> Tensor:
        """Attention of the step's T rows.

        Args:
            layer: the layer's index.
            query: `[heads, T, key_dim]`.
            key: `[kv_heads, T, key_dim]`, of the same rows.
            value: `[kv_heads, T, value_dim]`.
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


class PagedAttention:
    """Stores each row's key and value in its slot, then attends sequence by sequence.

    Args:
        cache: the keys and values of all slots.
        spans: the step's rows, in order.
    """

    def __init__(self, cache: KVCache, spans: Sequence[Span]) -> None:
        self._cache = cache
        self._spans = spans
        self._masks = [_causal_mask(span, cache.device) for span in spans]
        new = [run for span in spans for run in split_runs(span.runs, span.start)[1]]
        slots = [torch.arange(start, start + length) for start, length in new]
        self._slots = torch.cat(slots).to(cache.device)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
    ) -> Tensor:
        """See `StepAttention`."""
        self._cache.write(layer, self._slots, key.transpose(0, 1), value.transpose(0, 1))
        output = query.new_empty(query.shape[1], query.shape[0], value.shape[2])
        row = 0
        for span, mask in zip(self._spans, self._masks, strict=True):
            rows = slice(row, row + span.count)
            keys, values = self._cache.read(layer, span.runs)
            output[rows] = functional.scaled_dot_product_attention(
                query[None, :, rows],
                keys.transpose(0, 1)[None],
                values.transpose(0, 1)[None],
                attn_mask=mask,
                is_causal=span.start == 0 and span.count > 1,
                scale=scaling,
                enable_gqa=query.shape[0] != key.shape[0],
            )[0].transpose(0, 1)
            row += span.count
        return output


def _causal_mask(span: Span, device: torch.device) -> Tensor | None:
    """`[count, start + count]`, True where a row may look; None where the kernel knows by itself."""
    if span.start == 0 or span.count == 1:
        return None
    length = span.start + span.count
    return torch.ones(span.count, length, dtype=torch.bool, device=device).tril(span.start)


_step: ContextVar[StepAttention] = ContextVar("step_attention")


@contextmanager
def attending(step: StepAttention) -> Iterator[None]:
    """Within it, models of this thread whose attention is `IMPLEMENTATION` attend with `step`."""
    token = _step.set(step)
    try:
        yield
    finally:
        _step.reset(token)


def _attention_interface(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """What transformers calls: query, key and value are `[1, heads, T, dim]`."""
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    return _step.get().attend(layer, query[0], key[0], value[0], scaling)[None], None


# No mask function is registered under the name: transformers then builds no mask.
AttentionInterface.register(IMPLEMENTATION, _attention_interface)
