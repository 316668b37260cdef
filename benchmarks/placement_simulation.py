"""One run of a workload under a policy, event by event, for `placement.py`."""

import heapq
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count

from placement_engines import Engine, Speed
from placement_policies import Policy
from placement_workloads import Task

from parrot_backend.serving.placement.views import EngineView


@dataclass(slots=True)
class Outcome:
    """Seconds that each task took from when it could run, and what was computed; `thinking` is ours."""

    took: dict[Task, float] = field(default_factory=dict)
    ready: dict[Task, float] = field(default_factory=dict)
    prompt: int = 0
    cached: int = 0
    end: float = 0.0
    choices: int = 0
    thinking: float = 0.0


class Simulation:
    """Tasks wait in one queue, interactive ones first, and are bound when an engine has a place.

    Args:
        tasks: of a workload.
        engines: how many, each with one `speed`.
        make: the policy, given a clock.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        engines: int,
        speed: Speed,
        make: Callable[[Callable[[], float]], Policy],
    ) -> None:
        self.now = 0.0
        self.outcome = Outcome()
        self._engines = {f"engine {n}": Engine(f"engine {n}", speed) for n in range(engines)}
        self._views = {name: self._view(engine) for name, engine in self._engines.items()}
        self._policy = make(lambda: self.now)
        self._events: list[tuple[float, int, Task | Engine, int]] = []
        self._numbers = count()
        self._queues: tuple[deque[Task], deque[Task]] = (deque(), deque())
        self._room = engines * speed.slots
        self._missing = {task: len(task.after) for task in tasks}
        self._next: dict[Task, list[Task]] = defaultdict(list)
        for task in tasks:
            for before in task.after:
                self._next[before].append(task)
            if not task.after:
                self._at(task.at, task)

    def run(self) -> Outcome:
        """To the end."""
        while self._events:
            self.now, _, what, version = heapq.heappop(self._events)
            if isinstance(what, Task):
                self._come(what)
            elif what.version == version:
                self._step(what)
            self._fill()
        assert len(self.outcome.took) == len(self._missing), "somebody waits for ever"
        self.outcome.end = self.now
        return self.outcome

    def _at(self, when: float, what: Task | Engine) -> None:
        version = 0 if isinstance(what, Task) else what.version
        heapq.heappush(self._events, (when, next(self._numbers), what, version))

    def _come(self, task: Task) -> None:
        self.outcome.ready[task] = self.now
        self._policy.entered(task)
        self._queue([task])

    def _queue(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            self._queues[not task.interactive].append(task)

    def _step(self, engine: Engine) -> None:
        engine.advance(self.now)
        first, ended = engine.happened()
        self._changed(engine)
        start = time.perf_counter()
        if first is not None:
            self._queue(self._policy.first_token(first.task, first.cached))
        if ended is not None:
            self._room += 1
            self._queue(self._policy.ended(ended.task, engine.name))
        self.outcome.thinking += time.perf_counter() - start
        if ended is not None:
            self._end(ended.task)

    def _end(self, task: Task) -> None:
        self.outcome.took[task] = self.now - self.outcome.ready[task]
        for follower in self._next[task]:
            self._missing[follower] -= 1
            if not self._missing[follower]:
                self._at(self.now + follower.at, follower)

    def _fill(self) -> None:
        while self._room and (queue := self._queues[0] or self._queues[1]):
            task, views = queue.popleft(), [*self._views.values()]
            start = time.perf_counter()
            name = self._policy.choose(task, views)
            if name is not None:
                self._policy.started(task, self._views[name])
            self.outcome.thinking += time.perf_counter() - start
            self.outcome.choices += 1
            if name is not None:
                self._bind(task, self._engines[name])

    def _bind(self, task: Task, engine: Engine) -> None:
        assert engine.running < engine.speed.slots, "it is full"
        self._room -= 1
        engine.advance(self.now)
        work = engine.start(task)
        self.outcome.prompt += task.tokens
        self.outcome.cached += work.cached
        self._changed(engine)

    def _changed(self, engine: Engine) -> None:
        engine.version += 1
        self._views[engine.name] = self._view(engine)
        if (when := engine.next_event()) is not None:
            self._at(when, engine)

    def _view(self, engine: Engine) -> EngineView:
        speed = engine.speed
        sharing = "slot" if speed.sharing == "slot" else "computed"
        return EngineView(
            engine.name,
            speed.slots,
            engine.running,
            sharing,
            speed.kv_tokens,
            interactive_running=engine.interactive,
        )
