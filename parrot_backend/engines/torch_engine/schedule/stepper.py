"""The engine without its thread: plan, compute, choose, tell."""

import logging
from collections import abc
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from itertools import accumulate, pairwise
from time import perf_counter

import torch
from torch import Tensor

from parrot_backend.engines.base import EngineStats
from parrot_backend.engines.torch_engine.choose.sampling import Choices
from parrot_backend.engines.torch_engine.forward.forward_pass import Chunk, StepModel
from parrot_backend.engines.torch_engine.memory.kv_memory import KVMemory
from parrot_backend.engines.torch_engine.schedule.batch_scheduler import BatchScheduler, Work
from parrot_backend.engines.torch_engine.schedule.budget import PrefillBudget
from parrot_backend.engines.torch_engine.schedule.sequence import Event, Sequence
from parrot_backend.wire.errors import EngineError, ParrotError

logger = logging.getLogger(__name__)

Deliveries = list[tuple[Sequence, Event]]


@dataclass(slots=True)
class Turn:
    """How far a turn is: `foreseen` tokens of the draft were chosen, or it ended with `error`.

    The step's row `first` is its first one of logits. Tokens that are chosen unseen have none:

        draft forced       forced d1 d2 d3     rows        r0
        draft guessed      last d1 d2 d3       rows  r0 r1 r2 r3
    """

    work: Work
    first: int
    foreseen: int = 0
    error: ParrotError | None = None

    @property
    def row(self) -> int:
        """The row of logits that the next token is chosen from."""
        return self.first + max(0, self.foreseen - self.work.unseen)

    @property
    def next_drafted(self) -> int | None:
        """What the draft has for the next token."""
        draft = self.work.draft
        return draft[self.foreseen] if self.foreseen < len(draft) else None


def turns_of(works: Iterable[Work]) -> list[Turn]:
    """The turns of sequences that choose, whose rows of logits follow on one another."""
    works = list(works)
    first = accumulate((work.choices for work in works), initial=0)
    return [Turn(work, row) for work, row in zip(works, first, strict=False)]


class Stepper:
    """Runs sequences step by step; not thread-safe.

    Args:
        model: computes the steps.
        memory: the slots of the model's cache.
        max_batch: sequences that run at once.
        prefill_budget: prompt tokens computed per step at most.
        step_seconds: what a step should take, which may be reached by fewer; None for any time.
        prefill_ahead: whether what is expected is computed before it is asked for.
    """

    def __init__(
        self,
        model: StepModel,
        memory: KVMemory,
        *,
        max_batch: int,
        prefill_budget: int,
        step_seconds: float | None = None,
        prefill_ahead: bool = True,
    ) -> None:
        self._model = model
        self.memory = memory
        self.max_batch = max_batch
        self._budget = PrefillBudget(prefill_budget, step_seconds)
        self._scheduler = BatchScheduler(memory, max_batch, self._budget)
        self._prefills_ahead = prefill_ahead
        self._prefilled = 0
        self._generated = 0
        self._drafted = 0
        self._accepted = 0
        self._forced = 0
        self._steps = 0
        self._seconds = [0.0, 0.0, 0.0]

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
        planning, computing, choosing = self._seconds
        return EngineStats(
            running=len(self._scheduler.running),
            waiting=len(self._scheduler.waiting),
            kv_capacity_tokens=self.memory.capacity,
            kv_used_tokens=self.memory.used,
            kv_cached_tokens=self.memory.cached,
            tokens_prefilled=self._prefilled,
            tokens_shared=self._scheduler.shared,
            tokens_generated=self._generated,
            tokens_evicted=self.memory.evicted,
            tokens_drafted=self._drafted,
            tokens_accepted=self._accepted,
            tokens_forced=self._forced,
            tokens_prefilled_ahead=self._scheduler.ahead.prefilled,
            tokens_ahead_used=self._scheduler.ahead.used,
            tokens_ahead_wasted=self._scheduler.ahead.wasted,
            kv_shared_tokens=self.memory.tree.shared,
            prefix_tree_nodes=self.memory.tree.size,
            steps=self._steps,
            seconds_planning=planning,
            seconds_computing=computing,
            seconds_choosing=choosing,
        )

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence, whose prompt the KV memory must be able to hold.

        Its answer ends where the memory, or its tenant's share of it, does.
        """
        # The last token is told, and needs no room.
        sequence.bound(self.memory.limit(sequence.kv_share) + 1)
        self._scheduler.add(sequence)

    def cancel(self, sequence: Sequence) -> None:
        """End a sequence whose client has gone; its memory is free at once."""
        if not sequence.finished:
            sequence.finished = True
            self._scheduler.remove(sequence)

    def expect(self, who: Hashable, tenant: str, tokens: abc.Sequence[int]) -> None:
        """Keep what there is of `tokens`, and compute the rest where there is room, for `who`."""
        self.memory.expect(who, tenant, tokens)
        if self._prefills_ahead:
            self._scheduler.ahead.add(who, tenant, tokens)

    def unexpect(self, who: Hashable) -> None:
        """Forget that `who` is to come."""
        self.memory.unexpect(who)
        self._scheduler.ahead.forget(who)

    def fail_all(self, error: ParrotError) -> Deliveries:
        """End everything that runs or waits with `error`."""
        return [self._fail(sequence, error) for sequence in self.sequences]

    def step(self) -> Deliveries:
        """Compute one step; returns what the clients are to be told.

        A failure of the model ends the sequences of the step, and no other.

        Raises:
            RuntimeError: the stepper is not busy.
        """
        if not self.busy:
            raise RuntimeError("there is nothing that a step could compute")
        times = [perf_counter()]
        works = self._scheduler.plan()
        ahead = self._scheduler.plan_ahead(works)
        chunks = [_chunk(work) for work in works]
        if ahead is not None:
            chunks.append(Chunk(ahead.tokens, ahead.start, ahead.holding.runs, 0))
        if not chunks:
            return []
        times.append(perf_counter())
        try:
            logits = self._model.forward(chunks)
        except Exception as error:
            logger.exception("the forward pass failed")
            if ahead is not None:
                self._scheduler.ahead.failed(ahead)
            failure = EngineError(f"the forward pass failed: {error}")
            return [self._fail(work.sequence, failure) for work in works]
        times.append(perf_counter())
        self._budget.learn(sum(len(chunk.tokens) for chunk in chunks), times[-1] - times[-2])
        if ahead is not None:
            self._scheduler.ahead.done(ahead)
        for work in works:
            self._advance(work)
        deliveries = self._choose([work for work in works if not work.sequence.remaining], logits)
        self._count_step([*times, perf_counter()])
        return deliveries

    def _count_step(self, times: list[float]) -> None:
        self._steps += 1
        spent = [stop - start for start, stop in pairwise(times)]
        self._seconds = [sum(pair) for pair in zip(self._seconds, spent, strict=True)]

    def _advance(self, work: Work) -> None:
        """Count the work as done, and share what it computed of a prompt."""
        sequence = work.sequence
        was_decoding = sequence.decoding
        sequence.computed += work.count
        self._count_prompt(sequence)
        if sequence.holding and not was_decoding:
            self.memory.commit(sequence.holding, sequence.uncommitted)

    def _count_prompt(self, sequence: Sequence) -> None:
        """A prompt token is counted when it is first computed, not again after a preemption."""
        done = min(sequence.computed, sequence.prompt_length)
        self._prefilled += max(0, done - sequence.counted)
        sequence.counted = max(sequence.counted, done)

    def _choose(self, works: list[Work], logits: Tensor) -> Deliveries:
        """One token for every work's sequence, and as many more as its draft foresaw."""
        turns = turns_of(works)
        with torch.inference_mode():
            choices, going = Choices(logits), turns
            while going:
                samplers = [turn.work.sequence.sampler for turn in going]
                tokens = choices.choose([turn.row for turn in going], samplers)
                pairs = zip(going, tokens, strict=True)
                going = [turn for turn, token in pairs if self._accept(turn, token, logits)]
        return [self._conclude(turn) for turn in turns]

    def _accept(self, turn: Turn, token: int | ParrotError, logits: Tensor) -> bool:
        """Whether the turn's draft foresaw `token`, so that the next can be chosen too."""
        sequence = turn.work.sequence
        if isinstance(token, ParrotError):
            sequence.finished = True
            self._scheduler.discard(sequence)
            turn.error = token
            return False
        try:
            sequence.accept(token, logits[turn.row])
        except ParrotError as error:
            turn.error = error
        except Exception as error:
            turn.error = EngineError(f"detokenization failed: {error}")
        if turn.error is not None:
            self._fail(sequence, turn.error)
            return False
        self._generated += 1
        foreseen = token == turn.next_drafted
        turn.foreseen += foreseen
        sequence.computed += foreseen
        return foreseen and not sequence.finished

    def _conclude(self, turn: Turn) -> tuple[Sequence, Event]:
        sequence = turn.work.sequence
        self._count_draft(turn)
        if turn.error is not None:
            return sequence, turn.error
        if sequence.finished:
            self._scheduler.remove(sequence)
        elif sequence.holding:
            self.memory.shorten(sequence.holding, sequence.computed)
        return sequence, sequence.tell()

    def _count_draft(self, turn: Turn) -> None:
        drafted, sequence = len(turn.work.draft), turn.work.sequence
        if turn.work.forced:
            self._forced += turn.foreseen
        elif drafted and sequence.drafter is not None:
            self._drafted += drafted
            self._accepted += turn.foreseen
            sequence.drafter.learn(drafted, turn.foreseen)

    def _fail(self, sequence: Sequence, error: ParrotError) -> tuple[Sequence, Event]:
        sequence.finished = True
        self._scheduler.remove(sequence)
        return sequence, error


def _chunk(work: Work) -> Chunk:
    sequence = work.sequence
    start, stop = sequence.computed, sequence.computed + work.count
    tokens = sequence.tokens[start:stop] + work.draft
    runs = sequence.holding.runs if sequence.holding else []
    return Chunk(tokens, start, runs, work.choices if stop == len(sequence.tokens) else 0)
