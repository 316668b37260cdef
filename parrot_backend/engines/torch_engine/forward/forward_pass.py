"""The forward pass over one step: prompt chunks and single tokens as one flat batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from parrot_backend.engines.torch_engine.forward.attention import Span
from parrot_backend.engines.torch_engine.memory.kv_cache import KVCache
from parrot_backend.engines.torch_engine.memory.slots import Run


class Step(NamedTuple):
    """The T rows of a step: `tokens`, their `positions` in their sequences, and the `spans` they make.

    Logits are wanted of `rows`, indices into these.
    """

    tokens: list[int]
    positions: list[int]
    spans: list[Span]
    rows: list[int]


class ForwardPass(Protocol):
    """A model's weights, ready to compute a step."""

    @property
    def kv_dtype(self) -> torch.dtype:
        """The type that its keys and values are kept in."""
        ...

    def __call__(self, step: Step, cache: KVCache) -> Tensor:
        """Store the keys and values of a step's rows; returns logits `[len(rows), vocabulary]`."""
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
        step = Step([], [], [], [])
        for chunk in chunks:
            count = len(chunk.tokens)
            step.tokens.extend(chunk.tokens)
            step.positions.extend(range(chunk.start, chunk.start + count))
            step.spans.append(Span(chunk.start, count, chunk.runs))
            end = len(step.tokens)
            step.rows.extend(range(end - chunk.choices, end))
        with torch.inference_mode():
            return self._forward(step, self._cache)
