"""Who goes where: ours and three that are common, for `placement.py`."""

import random
from collections.abc import Callable, Sequence
from typing import Protocol

from placement_workloads import BLOCK, Task

from parrot_backend.serving.placement.blocks import BLOCK_TOKENS
from parrot_backend.serving.placement.placement import Placement
from parrot_backend.serving.placement.views import EngineView, PlacedCall

_STEP = BLOCK_TOKENS // BLOCK


class Policy(Protocol):
    """Chooses; where it doesn't, it has the task until it returns it."""

    def entered(self, task: Task) -> None:
        """A task waits."""

    def choose(self, task: Task, views: Sequence[EngineView]) -> str | None:
        """The engine that it goes to."""

    def started(self, task: Task, view: EngineView) -> None:
        """It runs there."""

    def first_token(self, task: Task, cached: int) -> list[Task]:
        """Its prompt is computed; who needn't wait any more."""

    def ended(self, task: Task, engine: str) -> list[Task]:
        """It has ended; who needn't wait any more."""


class Ours:
    """`Placement`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.placement = Placement(1, clock)
        self._calls: dict[Task, PlacedCall] = {}

    def entered(self, task: Task) -> None:
        """See `Policy`."""
        call = PlacedCall(
            str(task.number),
            task.tenant,
            task.blocks[_STEP - 1 :: _STEP],
            task.tokens,
            120.0,  # how long answers are is not known
            task.group,
            task.group_size,
            task.interactive,
            task,
        )
        self._calls[task] = call
        self.placement.entered(call)

    def choose(self, task: Task, views: Sequence[EngineView]) -> str | None:
        """See `Policy`."""
        return self.placement.choose(self._calls[task], views)

    def started(self, task: Task, view: EngineView) -> None:
        """See `Policy`."""
        self.placement.started(self._calls[task], view)

    def first_token(self, task: Task, cached: int) -> list[Task]:
        """See `Policy`."""
        return _tasks(self.placement.first_token(self._calls[task], cached, task.tokens))

    def ended(self, task: Task, engine: str) -> list[Task]:
        """See `Policy`."""
        return _tasks(self.placement.ended(self._calls.pop(task), task.answer))


class _Simple:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._dice = random.Random(1)

    def entered(self, task: Task) -> None:
        """It needs no book."""

    def started(self, task: Task, view: EngineView) -> None:
        """It needs no book."""

    def first_token(self, task: Task, cached: int) -> list[Task]:
        """Nobody waits for it."""
        return []

    def ended(self, task: Task, engine: str) -> list[Task]:
        """Nobody waits for it."""
        return []


class RoundRobin(_Simple):
    """One after the other, passing over those that are full."""

    _next = 0

    def choose(self, task: Task, views: Sequence[EngineView]) -> str | None:
        """See `Policy`."""
        for step in range(len(views)):
            view = views[(self._next + step) % len(views)]
            if view.free:
                self._next = (self._next + step + 1) % len(views)
                return view.name
        return None


class LeastLoaded(_Simple):
    """Where the fewest run."""

    def choose(self, task: Task, views: Sequence[EngineView]) -> str | None:
        """See `Policy`."""
        least = min(view.running for view in views)
        return self._dice.choice([view.name for view in views if view.running == least])


class Affinity(_Simple):
    """Where the session has been, as long as there is room (else it waits there)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self._homes: dict[str, int] = {}
        self._parked: dict[str, list[Task]] = {}

    def choose(self, task: Task, views: Sequence[EngineView]) -> str | None:
        """See `Policy`."""
        home = self._homes.setdefault(task.session, self._dice.randrange(len(views)))
        view = views[home]
        if view.free:
            return view.name
        self._parked.setdefault(view.name, []).append(task)
        return None

    def ended(self, task: Task, engine: str) -> list[Task]:
        """See `Policy`."""
        return self._parked.pop(engine, [])


POLICIES: dict[str, Callable[[Callable[[], float]], Policy]] = {
    "ours": Ours,
    "round robin": RoundRobin,
    "least loaded": LeastLoaded,
    "session affinity": Affinity,
}


def _tasks(calls: list[PlacedCall]) -> list[Task]:
    return [call.key for call in calls if isinstance(call.key, Task)]
