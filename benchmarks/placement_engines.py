"""A simulated engine, for `placement.py`: what it computes, when, and what it has cached."""

import heapq
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from placement_workloads import BLOCK, Task


@dataclass(frozen=True, slots=True)
class Speed:
    """An engine's: prompt tokens a second, and seconds of a step with so many answers in it.

    Prompts are computed first come first served, `chunk` tokens in a step beside the answers.
    """

    prefill: float = 8_000.0
    step: float = 0.020
    each: float = 0.0005
    chunk: int = 512
    slots: int = 32
    kv_tokens: int = 80_000
    sharing: str = "computed"


@dataclass(slots=True)
class Work:
    """A task that runs: tokens of its prompt that are left to compute, and that were cached."""

    task: Task
    left: float
    cached: int
    ends: float = 0.0


@dataclass(slots=True)
class Engine:
    """Prompts wait for one another, answers share the steps, and the cache drops what is oldest.

    A prompt shares what was computed before the call came, not what is computed beside it.
    """

    name: str
    speed: Speed
    now: float = 0.0
    tokens: float = 0.0
    running: int = 0
    interactive: int = 0
    version: int = 0
    cache: OrderedDict[object, None] = field(default_factory=OrderedDict)
    prompts: deque[Work] = field(default_factory=deque)
    answers: list[tuple[float, int, Work]] = field(default_factory=list)
    slots: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def start(self, task: Task) -> Work:
        """Take a task; `advance` has brought the engine to this moment."""
        cached = min(self._take(task) * BLOCK, task.tokens - 1)
        work = Work(task, float(task.tokens - cached), cached)
        self.prompts.append(work)
        self.running += 1
        self.interactive += task.interactive
        return work

    def advance(self, now: float) -> None:
        """Compute until then; nothing ends before."""
        prefill, decode = self._rates()
        if self.prompts:
            self.prompts[0].left -= prefill * (now - self.now)
        self.tokens += decode * (now - self.now)
        self.now = now

    def next_event(self) -> float | None:
        """When a prompt is computed, or an answer ends."""
        prefill, decode = self._rates()
        times = []
        if self.prompts:
            times.append(max(0.0, self.prompts[0].left) / prefill)
        if self.answers:
            times.append(max(0.0, self.answers[0][0] - self.tokens) / decode)
        return self.now + min(times) if times else None

    def happened(self) -> tuple[Work | None, Work | None]:
        """Who has its first token at this moment, and who has ended."""
        first = ended = None
        if self.prompts and self.prompts[0].left <= 1e-6:
            first = self.prompts.popleft()
            self._keep(first.task.blocks)
            first.ends = self.tokens + first.task.answer - 1
            heapq.heappush(self.answers, (first.ends, first.task.number, first))
        elif self.answers and self.answers[0][0] - self.tokens <= 1e-6:
            ended = heapq.heappop(self.answers)[2]
            self._leave(ended.task)
        return first, ended

    def _rates(self) -> tuple[float, float]:
        speed, count = self.speed, len(self.answers)
        step = (speed.step + speed.each * count) if count else 0.0
        if not self.prompts:
            return 0.0, 1 / step if step else 0.0
        step += speed.chunk / speed.prefill
        return speed.chunk / step, 1 / step

    def _take(self, task: Task) -> int:
        if self.speed.sharing != "slot":
            return _leading(task.blocks, self.cache)
        idle = [slot for slot in range(self.speed.slots) if slot not in self.cache]
        best = max(idle, key=lambda slot: _alike(self.slots.get(slot, ()), task.blocks))
        held = _alike(self.slots.get(best, ()), task.blocks)
        if not held:  # an empty one, or the one that is idle for longest
            best = min(
                idle, key=lambda slot: [*self.slots].index(slot) if slot in self.slots else -1
            )
        self.slots.pop(best, None)
        self.slots[best] = task.blocks
        self.cache[best] = None
        return held

    def _keep(self, blocks: tuple[int, ...]) -> None:
        if self.speed.sharing == "slot":
            return
        for block in reversed(blocks):
            self.cache[block] = None
            self.cache.move_to_end(block)
        self._age()

    def _leave(self, task: Task) -> None:
        self.running -= 1
        self.interactive -= task.interactive
        if self.speed.sharing == "slot":
            slot = next(s for s in self.cache if self.slots[s] is task.blocks)
            del self.cache[slot]
            self.slots[slot] = self.slots.pop(slot)
            return
        for number in range(task.answer // BLOCK):
            self.cache[task.number, number] = None
        self._age()

    def _age(self) -> None:
        while len(self.cache) * BLOCK > self.speed.kv_tokens:
            self.cache.popitem(last=False)


def _leading(blocks: tuple[int, ...], cache: OrderedDict[object, None]) -> int:
    count = 0
    for block in blocks:
        if block not in cache:
            break
        count += 1
    return count


def _alike(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    count = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        count += 1
    return count
