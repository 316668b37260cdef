"""The forward pass over one step: prompt chunks and single tokens as one flat batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from parrot_backend.engines.torch_engine.forward.attention import Span
from parrot_backend.engines.torch_engine.memory.kv_cache import KVCache
from parrot_backend.engines.torch_engine.memory.slots import Run, count_slots


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

    @property
    def vocabulary(self) -> int:
        """Its tokens are 0 up to, without, this."""
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

        Raises:
            ValueError: a token, a slot or a size is not what the model or the cache has.
        """
        # Compiled code trusts its numbers, and a wrong one is the end of the process.
        for fault in _faults(chunks, self._forward.vocabulary, self._cache.slots):
            raise ValueError(fault)
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


def _faults(chunks: Sequence[Chunk], vocabulary: int, slots: int) -> Iterator[str]:
    """What compiled code would read or write beyond its arrays for."""
    if not chunks:
        yield "a step without rows"
    for chunk in chunks:
        count = len(chunk.tokens)
        if not 0 <= chunk.choices <= count or not count or chunk.start < 0:
            yield f"{chunk.choices} choices of {count} tokens from number {chunk.start} on"
        elif not 0 <= min(chunk.tokens) <= max(chunk.tokens) < vocabulary:
            yield f"a token that is not from 0 to {vocabulary - 1}"
        if count_slots(chunk.runs) != chunk.start + count:
            yield f"{count_slots(chunk.runs)} slots for {chunk.start + count} tokens"
        for run in chunk.runs:
            if run.length < 1 or not 0 <= run.start <= slots - run.length:
                yield f"{run.length} slots from number {run.start} on, of {slots}"
