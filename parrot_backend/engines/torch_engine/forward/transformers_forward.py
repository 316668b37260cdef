"""The general path: any causal LM of transformers, with its attention replaced by ours.

transformers calls `attend` for each layer through its attention interface; what belongs to the step
reaches it through a context variable, as not every architecture passes keyword arguments down.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from parrot_backend.engines.torch_engine.forward.attention import (
    PlainAttention,
    Span,
    StepAttention,
)
from parrot_backend.engines.torch_engine.forward.cpu.batch_attention import CpuAttention, fits
from parrot_backend.engines.torch_engine.forward.forward_pass import Step
from parrot_backend.engines.torch_engine.memory.kv_cache import KVCache

IMPLEMENTATION = "parrot"

_step: ContextVar[StepAttention] = ContextVar("step_attention")


class TransformersForward:
    """Any causal LM of transformers whose attention is ours."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @property
    def kv_dtype(self) -> torch.dtype:
        """See `ForwardPass`."""
        dtype: torch.dtype = self._model.dtype
        return dtype

    @property
    def vocabulary(self) -> int:
        """See `ForwardPass`."""
        return int(self._model.get_input_embeddings().num_embeddings)

    def __call__(self, step: Step, cache: KVCache) -> Tensor:
        """See `ForwardPass`."""
        tokens, positions, rows = (
            torch.tensor(numbers, dtype=torch.long, device=cache.device)
            for numbers in (step.tokens, step.positions, step.rows)
        )
        token = _step.set(step_attention(cache, step.spans))
        try:
            output = self._model(
                input_ids=tokens[None],
                position_ids=positions[None],
                logits_to_keep=rows,
                use_cache=False,
            )
        finally:
            _step.reset(token)
        logits: Tensor = output.logits[0]
        return logits


def step_attention(cache: KVCache, spans: Sequence[Span]) -> StepAttention:
    """Our kernels, where the heads are as wide as they want them; else plain torch."""
    return CpuAttention(cache, spans) if fits(cache) else PlainAttention(cache, spans)


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
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    return _step.get().attend(layer, query, key, value, scaling)[None], None


# No mask function is registered under the name: transformers then builds no mask.
AttentionInterface.register(IMPLEMENTATION, _attention_interface)
