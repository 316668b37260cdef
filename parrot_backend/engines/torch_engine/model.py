"""The forward pass over one step: prompt chunks and single tokens as one flat batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from parrot_backend.engines.torch_engine.attention import (
    Span,
    StepAttention,
)
from parrot_backend.engines.torch_engine.kv_cache import KVCache
from parrot_backend.engines.torch_engine.slots import Run
from parrot_backend.engines.torch_engine.step_attention import step_attention


class ForwardPass(Protocol):
    """A model's weights, ready to compute a step."""

    def __call__(
        self, tokens: Tensor, positions: Tensor, rows: Tensor, attention: StepAttention
    ) -> Tensor:
        """Logits `[R, vocabulary]` of the R `rows` among the T of the step.

        Args:
            tokens: `[T]`, the ids.
            positions: `[T]`, each token's place in its sequence.
            rows: `[R]`, indices into `tokens`.
            attention: for exactly these tokens.
        """
        ...


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens `start` and on of one sequence.

    `runs` are the slots of tokens 0 up to the chunk's last. Logits are wanted of its last `choices`.
    """

    tokens: list[int]
    start: int
    runs: list[Run]
    choices: int


class StepModel:
    """A model together with the keys and values of what it has computed.

    Args:
        forward: the model.
        cache: where its keys and values go.
    """

    def __init__(self, forward: ForwardPass, cache: KVCache) -> None:
        self._forward = forward
        self._cache = cache

    def forward(self, chunks: Sequence[Chunk]) -> Tensor:
        """Compute `chunks`, store their keys and values, and return the logits that are wanted.

        Returns:
            `[rows, vocabulary]`, one row for each token whose logits are wanted, in order.
        """
        tokens = [token for chunk in chunks for token in chunk.tokens]
        positions = [chunk.start + i for chunk in chunks for i in range(len(chunk.tokens))]
        rows: list[int] = []
        end = 0
        for chunk in chunks:
            end += len(chunk.tokens)
            rows += range(end - chunk.choices, end)
        spans = [Span(chunk.start, len(chunk.tokens), chunk.runs) for chunk in chunks]
        with torch.inference_mode():
            return self._forward(
                self._tensor(tokens),
                self._tensor(positions),
                self._tensor(rows),
                step_attention(self._cache, spans),
            )

    def _tensor(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=self._cache.device)
