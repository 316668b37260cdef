"""The forward pass over one step: prompt chunks and single tokens as one flat batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from parrot_backend.engines.torch_engine.attention import (
    PagedAttention,
    Span,
    StepAttention,
    attending,
)
from parrot_backend.engines.torch_engine.kv_cache import KVCache
from parrot_backend.engines.torch_engine.slots import Run


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens `start` and on of one sequence.

    `runs` are the slots of tokens 0 up to the chunk's last. `wants_logits`: of its last token.
    """

    tokens: list[int]
    start: int
    runs: list[Run]
    wants_logits: bool


def forward(model: Any, chunks: Sequence[Chunk], attention: StepAttention) -> Tensor:
    """Logits `[rows, vocabulary]`, one row for each chunk that wants them, in order.

    Args:
        model: a transformers causal LM whose attention is ours.
        chunks: the batch.
        attention: for exactly these chunks.
    """
    tokens = [token for chunk in chunks for token in chunk.tokens]
    positions = [chunk.start + i for chunk in chunks for i in range(len(chunk.tokens))]
    rows, end = [], 0
    for chunk in chunks:
        end += len(chunk.tokens)
        if chunk.wants_logits:
            rows.append(end - 1)
    with attending(attention), torch.inference_mode():
        output = model(
            input_ids=torch.tensor([tokens], device=model.device),
            position_ids=torch.tensor([positions], device=model.device),
            logits_to_keep=torch.tensor(rows, dtype=torch.long, device=model.device),
            use_cache=False,
        )
    logits: Tensor = output.logits[0]
    return logits


class StepModel:
    """A model together with the keys and values of what it has computed.

    Args:
        model: a transformers causal LM whose attention is ours.
        cache: where its keys and values go.
    """

    def __init__(self, model: Any, cache: KVCache) -> None:
        self._model = model
        self._cache = cache

    def forward(self, chunks: Sequence[Chunk]) -> Tensor:
        """Compute `chunks`, store their keys and values, and return the logits that are wanted.

        Returns:
            `[rows, vocabulary]`, one row for each chunk that wants logits, in order.
        """
        spans = [Span(chunk.start, len(chunk.tokens), chunk.runs) for chunk in chunks]
        return forward(self._model, chunks, PagedAttention(self._cache, spans))
