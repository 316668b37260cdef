"""The general path: any causal LM of transformers, with its attention replaced by ours.

transformers calls `attend` for each layer through its attention interface; what belongs to the step
reaches it through a context variable, as not every architecture passes keyword arguments down.
"""

from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from parrot_backend.engines.torch_engine.attention import StepAttention
from parrot_backend.engines.torch_engine.kv_cache import KVCache
from parrot_backend.engines.torch_engine.model import Step
from parrot_backend.engines.torch_engine.step_attention import step_attention

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
