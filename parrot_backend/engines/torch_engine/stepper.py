"""The engine without its thread: plan, compute, choose, tell."""

import logging

import torch
from torch import Tensor

from parrot_backend.engines.base import EngineStats
from parrot_backend.engines.torch_engine.errors import KVMemoryError
from parrot_backend.engines.torch_engine.memory import KVMemory
from parrot_backend.engines.torch_engine.model import Chunk, StepModel
from parrot_backend.engines.torch_engine.sampling import choose_tokens
from parrot_backend.engines.torch_engine.scheduler import Scheduler, Work
from parrot_backend.engines.torch_engine.sequence import Event, Sequence
from parrot_backend.errors import EngineError, ParrotError

logger = logging.getLogger(__name__)

Told = list[tuple[Sequence, Event]]


class Stepper:
    """Runs sequences step by step; not thread-safe.

    Args:
        model: computes the steps.
        memory: the slots of the model's cache.
        max_batch: sequences that run at once.
        prefill_budget: prompt tokens computed per step.
    """

    def __init__(
        self, model: StepModel, memory: KVMemory, *, max_batch: int, prefill_budget: int
    ) -> None:
        self._model = model
        self._memory = memory
        self._scheduler = Scheduler(memory, max_batch, prefill_budget)
        self._prefilled = 0
        self._generated = 0

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do."""
        return self._scheduler.busy

    @property
    def sequences(self) -> list[Sequence]:
        """Everything that runs or waits."""
        return [*self._scheduler.running, *self._scheduler.waiting]

    @property
    def stats(self) -> EngineStats:
        """The load and the counts now."""
        return EngineStats(
            running=len(self._scheduler.running),
            waiting=len(self._scheduler.waiting),
            kv_capacity_tokens=self._memory.capacity,
            kv_used_tokens=self._memory.used,
            kv_cached_tokens=self._memory.cached,
            tokens_prefilled=self._prefilled,
            tokens_shared=self._scheduler.shared,
            tokens_generated=self._generated,
            tokens_evicted=self._memory.evicted,
        )

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence, whose prompt the KV memory must be able to hold."""
        self._scheduler.add(sequence)

    def cancel(self, sequence: Sequence) -> None:
        """End a sequence whose client has gone; its memory is free at once."""
        if not sequence.finished:
            sequence.finished = True
            self._scheduler.remove(sequence)

    def fail_all(self, error: ParrotError) -> Told:
        """End everything that runs or waits with `error`."""
        return [self._fail(sequence, error) for sequence in self.sequences]

    def step(self) -> Told:
        """Compute one step; returns what the clients are to be told.

        A failure of the model ends the sequences of the step, and no other.

        Raises:
            RuntimeError: the stepper is not busy.
        """
        works = self._scheduler.plan()
        try:
            logits = self._model.forward([_chunk(work) for work in works])
        except Exception as error:
            logger.exception("the forward pass failed")
            failure = EngineError(f"the forward pass failed: {error}")
            return [self._fail(work.sequence, failure) for work in works]
        for work in works:
            self._advance(work)
        return self._choose([w.sequence for w in works if not w.sequence.remaining], logits)

    def _advance(self, work: Work) -> None:
        """Count the work as done, and share what it computed of a prompt."""
        sequence = work.sequence
        was_decoding = sequence.decoding
        sequence.computed += work.count
        self._count_prompt(sequence)
        if sequence.holding and not was_decoding:
            self._memory.commit(sequence.holding, sequence.uncommitted)

    def _count_prompt(self, sequence: Sequence) -> None:
        """A prompt token is counted when it is first computed, not again after a preemption."""
        done = min(sequence.computed, sequence.prompt_length)
        self._prefilled += max(0, done - sequence.counted)
        sequence.counted = max(sequence.counted, done)

    def _choose(self, sequences: list[Sequence], logits: Tensor) -> Told:
        if not sequences:
            return []
        with torch.inference_mode():
            tokens = choose_tokens(logits, [sequence.sampler for sequence in sequences])
        chosen = zip(sequences, tokens, logits, strict=True)
        return [self._accept(sequence, token, row) for sequence, token, row in chosen]

    def _accept(
        self, sequence: Sequence, token: int | ParrotError, logits: Tensor
    ) -> tuple[Sequence, Event]:
        if isinstance(token, ParrotError):
            sequence.finished = True
            self._scheduler.discard(sequence)
            return sequence, token
        try:
            delta = sequence.accept(token, logits)
        except ParrotError as error:
            return self._fail(sequence, error)
        except Exception as error:
            return self._fail(sequence, EngineError(f"detokenization failed: {error}"))
        self._generated += 1
        if sequence.finished:
            self._scheduler.remove(sequence)
        elif len(sequence.tokens) > self._memory.capacity:
            return self._fail(sequence, too_long_for(self._memory.capacity, len(sequence.tokens)))
        return sequence, delta

    def _fail(self, sequence: Sequence, error: ParrotError) -> tuple[Sequence, Event]:
        sequence.finished = True
        self._scheduler.remove(sequence)
        return sequence, error


def too_long_for(capacity: int, tokens: int) -> KVMemoryError:
    """The error of a sequence that the KV memory can't hold alone."""
    return KVMemoryError(
        f"{tokens} tokens need KV memory and the engine has room for {capacity}: "
        "shorten the prompt, lower max_tokens, or give the engine more KV memory"
    )


def _chunk(work: Work) -> Chunk:
    sequence = work.sequence
    start, stop = sequence.computed, sequence.computed + work.count
    runs = sequence.holding.runs if sequence.holding else []
    return Chunk(sequence.tokens[start:stop], start, runs, stop == len(sequence.tokens))
