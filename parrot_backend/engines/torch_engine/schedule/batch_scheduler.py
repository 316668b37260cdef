"""Step planning: which tokens the next forward pass computes.

Decoding goes first, so that no prompt, however long, stops a stream that has begun; prompts then
share the prefill budget, the most urgent first, in chunks (Sarathi-Serve, arXiv 2403.02310). A
waiting prompt that shares a prefix with one that is being computed waits for it, and starts behind it:

    step 1   A [prefix, chunk 1]      B, C wait
    step 2   A [prefix, chunk 2]      B, C wait: what they share with A is not there yet
    step 3   A [own tokens]           B, C start behind the prefix
"""

import math
from bisect import insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import merge
from time import monotonic

from parrot_backend.engines.torch_engine.memory.kv_memory import Holding, KVMemory
from parrot_backend.engines.torch_engine.memory.prefix_tree import common_length
from parrot_backend.engines.torch_engine.schedule.ahead import TILE_ROWS, AheadWork, PrefillAhead
from parrot_backend.engines.torch_engine.schedule.budget import PrefillBudget
from parrot_backend.engines.torch_engine.schedule.sequence import Sequence, urgency

# Computing fewer tokens twice costs less than the step that waiting for them takes.
_WORTH_WAITING_FOR = 16
# The more rows a step has, the less of it is the time to read the weights, which is what a draft saves.
# Of 16, measured on two AVX2 cores, that is less than half.
_ROWS_WITH_DRAFTS = 16
# Where chats came in the last seconds, other prompts are computed in chunks that they can wait for.
_INTERRUPTED_SECONDS = 5.0
_SHORT_CHUNK = 96
# So long chats have the steps for themselves, and a part of the time of all other steps on top: who
# chats is hardly delayed by others, and others never stand still for longer.
_ALONE_SECONDS = 4.0
_ALONE_SHARE = 0.5


@dataclass(slots=True)
class Work:
    """The next `count` tokens of `sequence`, and a draft of what follows; it has slots for all.

    The draft is `forced` where a grammar allows nothing else.
    """

    sequence: Sequence
    count: int
    draft: list[int] = field(default_factory=list)
    forced: bool = False

    @property
    def unseen(self) -> int:
        """Tokens of the draft that are chosen without logits."""
        return len(self.draft) if self.forced and not self.sequence.tells_logits else 0

    @property
    def choices(self) -> int:
        """Rows of logits that the next tokens are chosen from, where the sequence will choose."""
        return 1 + len(self.draft) - self.unseen


class BatchScheduler:
    """The sequences that wait and that run, and the plan of each step.

    `shared` counts the prompt tokens that were found in the prefix tree.

    Args:
        memory: the KV memory that they share.
        max_batch: sequences that run at once.
        budget: prompt tokens computed per step.
    """

    def __init__(self, memory: KVMemory, max_batch: int, budget: PrefillBudget) -> None:
        self.ahead = PrefillAhead(memory)
        self._interactive_at = -math.inf
        self._alone_seconds = _ALONE_SECONDS
        self._alone = False
        self._planned_at = math.inf
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.shared = 0
        self._memory = memory
        self._max_batch = max_batch
        self._budget = budget

    @property
    def busy(self) -> bool:
        """Whether there is anything to compute."""
        return bool(self.running or self.waiting or self.ahead.busy)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence; the KV memory must be able to hold its tokens."""
        if sequence.interactive:
            self._interactive_at = monotonic()
        if not self.running and not self.waiting:
            self._planned_at = math.inf  # nobody waited meanwhile
        self._wait(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it is; what it computed stays cached."""
        self.ahead.wake()
        if sequence.holding is None:
            self.waiting.remove(sequence)
            self._memory.unexpect(sequence)
        else:
            self.running.remove(sequence)
            self._release(sequence)

    def discard(self, sequence: Sequence) -> None:
        """Take out a running sequence and forget what it computed."""
        self.running.remove(sequence)
        if holding := sequence.stop():
            self._memory.forget(holding)

    def plan(self) -> list[Work]:
        """The next step: every decoding sequence's token, prompts up to the budget, then drafts.

        Something can always go on: prompts are admitted only where all that run fit together, so
        without decoding sequences they have the memory that they need, and the last decoding
        sequence can take that of all others.

        Raises:
            RuntimeError: nothing of what runs or waits can go on.
        """
        self._make_way()
        self._count_time()
        works = self._plan_interactive() or self._plan_all()
        if not works and (self.running or self.waiting):
            raise RuntimeError("there is nothing that a step could compute")
        self._add_drafts([work for work in works if work.count == work.sequence.remaining])
        return works

    def plan_ahead(self, works: list[Work]) -> AheadWork | None:
        """What is computed ahead beside a plan's works: nothing where any of them is a prompt."""
        if self.waiting or any(work.count > 1 for work in works):
            return None
        rows = sum(work.count + len(work.draft) for work in works)
        return self.ahead.plan(rows, self._budget.tokens)

    def _make_way(self) -> None:
        """Where the batch is full, who waits first takes the place of who runs with a lower priority.

        One in a step: for more the budget would seldom suffice, and their places would be empty.
        """
        if not self.waiting or len(self.running) < self._max_batch:
            return
        first, last = self.waiting[0], self.running[-1]
        if last.priority >= first.priority or self._is_being_computed(first):
            return
        holding = self._memory.acquire(first.tenant, first.tokens[:-1])
        if _akin(first, last) or self._fits_share(first, holding):
            self._preempt(last)
        self._memory.release(holding, [])

    def _plan_all(self) -> list[Work]:
        return self._plan_decodes(self.running) + self._plan_prefills(self._budget.tokens)

    def _count_time(self) -> None:
        """The last step's time is taken from what interactive ones may have alone, or adds to it."""
        before, self._planned_at = self._planned_at, monotonic()
        seconds = max(0.0, self._planned_at - before)
        gained = -seconds if self._alone else _ALONE_SHARE * seconds
        self._alone_seconds = min(max(0.0, self._alone_seconds + gained), _ALONE_SECONDS)
        self._alone = False

    def _plan_interactive(self) -> list[Work]:
        """What somebody waits for alone, where there is any.

        A step takes as long as its rows: beside a batch of siblings, or a chunk of a prompt, each token
        of a chat would take many times as long as alone. When that has gone on for long, the rest has
        what makes a tile full.
        """
        if not any(sequence.interactive for sequence in (*self.running, *self.waiting)):
            return []
        works = self._plan_decodes([s for s in self.running if s.interactive])
        works += self._plan_prefills(self._budget.tokens, interactive=True)
        if not works:
            return []
        rest = [s for s in (*self.running, *self.waiting) if not s.interactive]
        self._alone = bool(rest) and self._alone_seconds > 0
        if self._alone:
            return works
        left = -sum(work.count for work in works) % TILE_ROWS or TILE_ROWS
        works += (others := self._plan_decodes([s for s in rest if s.decoding][:left]))
        if left > len(others):
            works += self._plan_prefills(left - len(others), interactive=False)
        return [work for work in works if work.sequence.holding]

    def _plan_decodes(self, sequences: Iterable[Sequence]) -> list[Work]:
        decoding = [sequence for sequence in sequences if sequence.decoding]
        return [Work(sequence, 1) for sequence in decoding if self._secure_slot(sequence)]

    def _secure_slot(self, sequence: Sequence) -> bool:
        """A slot for the next token, if need be from those who come last; False if that is itself.

        A tenant that has its share takes from nobody but itself.
        """
        while sequence.holding and not self._extend(sequence, 1):
            full = not self._memory.available
            self._preempt(next(s for s in reversed(self.running) if full or _akin(s, sequence)))
        return sequence.holding is not None

    def _extend(self, sequence: Sequence, count: int) -> bool:
        holding = sequence.holding
        return holding is not None and self._memory.extend(holding, count, sequence.kv_share)

    def _room(self, sequence: Sequence) -> int:
        holding = sequence.holding
        return self._memory.room(holding, sequence.kv_share) if holding else 0

    def _plan_prefills(self, budget: int, *, interactive: bool | None = None) -> list[Work]:
        """Chunks of prompts; only of those that are `interactive`, or are not, where that is said."""
        works: list[Work] = []
        short = _SHORT_CHUNK if self._is_interrupted() else budget
        for sequence in self._prompts(interactive):
            most = budget if sequence.interactive else min(budget, short)
            count = min(sequence.remaining, most, self._room(sequence))
            if count > 0 and self._extend(sequence, count):
                works.append(Work(sequence, count))
                budget -= count
                short -= 0 if sequence.interactive else count
            if not budget:
                break
        return works

    def _add_drafts(self, works: list[Work]) -> None:
        """Let sequences that will choose go on with what may come next, in memory that is left over.

        What a grammar forces is as good as known, and has a budget like that of prompts.
        """
        forced, guessed = self._budget.tokens, _ROWS_WITH_DRAFTS - len(works)
        for work in works:
            free = max(0, self._room(work.sequence))
            work.draft = work.sequence.forced(min(forced, free))
            work.forced = bool(work.draft)
            if work.forced:
                forced -= len(work.draft)
            else:
                work.draft = self._guess(work.sequence, min(guessed, free), len(works))
                guessed -= len(work.draft)
            self._extend(work.sequence, len(work.draft))

    def _guess(self, sequence: Sequence, most: int, rows: int) -> list[int]:
        most = min(most, sequence.room)
        if sequence.drafter is None or sequence.holding is None or most < 1:
            return []
        new = sequence.tokens[sequence.holding.node.end :]
        known = self._memory.following(sequence.holding, new, most)
        return sequence.drafter.draft(most, rows, known)

    def _is_interrupted(self) -> bool:
        """Whether chats come now and then, each of which waits for the step that is computed then."""
        return monotonic() - self._interactive_at < _INTERRUPTED_SECONDS

    def _prompts(self, interactive: bool | None = None) -> Iterator[Sequence]:
        """Prompts that can go on, the most urgent first; those that wait are admitted on the way.

        One is admitted where there is room for all its tokens beside what the others still need. Who
        waits for that keeps everybody behind it waiting, and who waits for room in its tenant's share
        only those of the same tenant.
        """
        prefilling = [sequence for sequence in self.running if not sequence.decoding]
        admitting, over_share = True, set[str]()
        for sequence in merge(prefilling, list(self.waiting), key=urgency):
            if interactive is not None and sequence.interactive != interactive:
                continue
            if sequence.holding:
                yield sequence
                continue
            admitting = admitting and len(self.running) < self._max_batch
            if not admitting or sequence.tenant in over_share or self._is_being_computed(sequence):
                continue
            # The last token is computed always: its logits choose the next one.
            holding = self._memory.acquire(sequence.tenant, sequence.tokens[:-1])
            if not self._fits_share(sequence, holding):
                over_share.add(sequence.tenant)
            elif not self._fits(sequence, holding):
                admitting = False
            else:
                self._start(sequence, holding)
                yield sequence
                continue
            self._memory.release(holding, [])

    def _fits(self, sequence: Sequence, holding: Holding) -> bool:
        promised = sum(_missing_slots(other) for other in self.running)
        return len(sequence.tokens) - holding.length + promised <= self._memory.available

    def _fits_share(self, sequence: Sequence, holding: Holding) -> bool:
        if sequence.kv_share >= 1:
            return True
        promised = sum(_missing_slots(other) for other in self.running if _akin(other, sequence))
        left = self._memory.left_of_share(holding, sequence.kv_share)
        return len(sequence.tokens) - holding.length + promised <= left

    def _is_being_computed(self, sequence: Sequence) -> bool:
        """Whether a running prompt is about to compute tokens that `sequence` needs next."""
        tokens = sequence.tokens
        wanted = self._memory.match(sequence.tenant, tokens) + _WORTH_WAITING_FOR
        return any(
            common_length(other.tokens, tokens) >= wanted
            for other in self.running
            if not other.decoding
            and other.tenant == sequence.tenant
            and other.priority >= sequence.priority
            # Who has steps alone does not wait for who has none meanwhile.
            and other.interactive >= sequence.interactive
        )

    def _start(self, sequence: Sequence, holding: Holding) -> None:
        self.ahead.found(sequence.tenant, sequence.tokens, holding.length)
        self.shared += sequence.start(holding)
        self.waiting.remove(sequence)
        self._memory.unexpect(sequence)
        insort(self.running, sequence, key=urgency)

    def _preempt(self, sequence: Sequence) -> None:
        """Send a running sequence back to wait; its tokens are kept, their keys and values cached."""
        self.running.remove(sequence)
        self._release(sequence)
        self._wait(sequence)

    def _wait(self, sequence: Sequence) -> None:
        insort(self.waiting, sequence, key=urgency)
        self._memory.expect(sequence, sequence.tenant, sequence.tokens)

    def _release(self, sequence: Sequence) -> None:
        tokens = sequence.uncommitted
        if holding := sequence.stop():
            self._memory.release(holding, tokens)


def _akin(left: Sequence, right: Sequence) -> bool:
    """Whether they have one tenant, whose share of the memory both take from."""
    return left.tenant == right.tenant


def _missing_slots(sequence: Sequence) -> int:
    return len(sequence.tokens) - (sequence.holding.length if sequence.holding else 0)
