"""`Placement`: which engine a call goes to, and whether it waits for what another computes.

    entered -> choose -> started -> first_token -> ended
                 ^ |
     told again  | '-> None: it waits         those that may choose again are returned by
                 '----------------------------  first_token, ended, lost and changed

Pure code over views of the engines: no I/O, and of time only what the clock tells. Whatever a call can
do (`options.py`) has a cost in seconds (`cost.py`), and the lowest is taken. So a call goes where its
prefix is, unless it is sooner done elsewhere; a leader's followers go where it went; and a task group
fills the engine that has its prefix, until for the next member the same prefix somewhere else is
sooner there. Of many engines those that have something of the call, and two of the rest, drawn by
their weights, are compared (the power of two choices, Mitzenmacher 2001).

Each call costs O(its blocks) where it comes, starts and ends, and O(engines x log blocks) when it
chooses.
"""

import random
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from parrot_backend.serving.placement.books import Book, Run
from parrot_backend.serving.placement.cost import LEAST_WEIGHT, seconds, uncached
from parrot_backend.serving.placement.options import Asked, Seen, options
from parrot_backend.serving.placement.shared import SharedBlocks
from parrot_backend.serving.placement.views import EngineView, PlacedCall
from parrot_backend.serving.placement.waits import FREED, Waits

_ALL_COMPARED = 8  # engines
_DRAWN = 2
_MOST_WAITS = 64  # of one call, for something that is better than what it could have at once
_MOST_QUEUED = 4.0  # calls for each engine; more are not taken to be in need of the same engine
_ALIKE = 1e-9
_PATIENCE, _LEAST_PATIENCE = 2.0, 0.25  # of a wait as it was thought to be, and seconds


@dataclass(slots=True)
class _Group:
    """A task group that is not over: its members here, and how many of them have gone to an engine."""

    members: int = 0
    placed: int = 0


class Placement:
    """See the module.

    Args:
        seed: of what is drawn; with the same one and the same events the choices are the same.
        clock: tells the seconds.
    """

    def __init__(self, seed: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._dice = random.Random(seed)
        self._clock = clock
        self._books: dict[str, Book] = {}
        self._runs: dict[PlacedCall, Run] = {}
        self._waiting: dict[PlacedCall, int] = {}
        self._shared = SharedBlocks()
        self._waits = Waits()
        self._groups: dict[Hashable, _Group] = {}

    def __len__(self) -> int:
        """What is kept of calls that have not ended; what engines have cached is not counted."""
        calls = len(self._runs) + len(self._waiting) + len(self._groups)
        return calls + len(self._shared) + len(self._waits)

    # What is told

    def entered(self, call: PlacedCall) -> None:
        """It waits in the queue, and others count on it; else `choose` says so."""
        if call in self._waiting or call in self._runs:
            return
        self._waiting[call] = 0
        self._shared.add(call)
        if call.group is not None:
            self._groups.setdefault(call.group, _Group()).members += 1

    def started(self, call: PlacedCall, engine: EngineView) -> None:
        """It runs there, as was chosen or not."""
        self.entered(call)
        del self._waiting[call]
        self._shared.remove(call)
        self._waits.remove(call)
        book = self._book(engine)
        held = book.held(call)
        run = self._runs[call] = Run(
            call,
            engine.name,
            held,
            uncached(call, held),
            seconds(engine, book, call, held),
            len(book.runs),
            self._clock(),
        )
        book.start(run)
        if call.group is not None:
            self._groups[call.group].placed += 1

    def first_token(
        self,
        call: PlacedCall,
        cached_tokens: int | None = None,
        prompt_tokens: int | None = None,
    ) -> list[PlacedCall]:
        """Its prompt is computed, and so many tokens were cached, if that is told. Told once.

        Returns:
            Who waits for it, and may choose.
        """
        run = self._runs.get(call)
        if run is None or run.first is not None:
            return []
        book = self._books[run.engine]
        book.first_token(run, self._clock(), _estimated(call, cached_tokens, prompt_tokens))
        # Its slot is still taken, but now more is known of how long to wait for it.
        return self._waits.free_behind(call, FREED if book.slots is not None else None)

    def ended(
        self,
        call: PlacedCall,
        answer_tokens: float = 0.0,
        cached_tokens: int | None = None,
        prompt_tokens: int | None = None,
    ) -> list[PlacedCall]:
        """It runs or waits no longer, whyever; it may come again.

        So many tokens were cached, if that is told only now.

        Returns:
            Who has waited for it or for its place, and may choose.
        """
        self._waits.remove(call)
        free = self._waits.free_behind(call, FREED)
        if call in self._waiting:
            del self._waiting[call]
            self._shared.remove(call)
            self._left_group(call)
        elif (run := self._runs.pop(call, None)) is not None:
            told = _estimated(call, cached_tokens, prompt_tokens)
            self._books[run.engine].end(run, self._clock(), answer_tokens, told)
            self._left_group(call)
            free += self._waits.free_at(run.engine) + self._waits.free_at(None)
            free += self._waits.free_one()
        return free

    def lost(self, engine: str) -> list[PlacedCall]:
        """What an engine had is gone, and nothing runs there any more. `ended` needn't be told.

        Returns:
            Who has waited for it, and may choose.
        """
        free: list[PlacedCall] = []
        if (book := self._books.pop(engine, None)) is not None:
            for call in book.runs:
                del self._runs[call]
                self._left_group(call)
                free += self._waits.free_behind(call)
        return free + self._waits.free_all_at(engine)

    def changed(self) -> list[PlacedCall]:
        """An engine came, is ready, or has more places.

        Returns:
            Who has found no place anywhere, and may choose.
        """
        return self._waits.free_at(None)

    def overdue(self) -> list[PlacedCall]:
        """Who has waited twice as long as was thought, and may choose: what it waits for may hang."""
        return self._waits.overdue(self._clock())

    @property
    def next_due(self) -> float | None:
        """Seconds until `overdue` has somebody, if those that wait still do."""
        due = self._waits.next_due
        return None if due is None else max(0.0, due - self._clock())

    # The choice

    def choose(self, call: PlacedCall, engines: Sequence[EngineView]) -> str | None:
        """The engine that a call goes to now; None where it waits until it is told to choose again."""
        self.entered(call)
        self._waits.remove(call)
        ready = [view for view in engines if view.ready]
        if not any(view.free for view in ready):
            self._waits.add(call, None)
            return None
        asked = self._asked(call, len(ready))
        found = [o for seen in self._seen(call, ready) for o in options(asked, seen, self._waits)]
        if self._waiting[call] >= _MOST_WAITS:
            found = [option for option in found if option.wait is None]
        least = min(option.cost for option in found) * (1 + _ALIKE)
        best = self._dice.choice([option for option in found if option.cost <= least])
        if best.wait is None:
            return best.engine
        self._waiting[call] += 1
        due = self._clock() + max(_PATIENCE * best.wait, _LEAST_PATIENCE)
        self._waits.add(call, best.engine, best.leader, due)
        return None

    def _seen(self, call: PlacedCall, ready: list[EngineView]) -> list[Seen]:
        """The engines that are compared."""
        everyone = [Seen.of(view, self._book(view), call) for view in ready]
        if len(everyone) <= _ALL_COMPARED:
            return everyone
        having = [seen for seen in everyone if seen.held or seen.leader is not None]
        rest = [
            seen for seen in everyone if seen.view.free and not seen.held and seen.leader is None
        ]
        if len(rest) <= _DRAWN:
            return having + rest
        weights = [max(seen.view.weight, LEAST_WEIGHT) for seen in rest]
        return having + self._dice.choices(rest, weights, k=_DRAWN)

    def _asked(self, call: PlacedCall, engines: int) -> Asked:
        shared, followers = self._shared.shared(call)
        others = len(self._waiting) - 1 - followers
        if call.group is not None:
            rest = call.group_size - self._groups[call.group].placed - 1
            followers = max(followers, rest)
        queue = min(others / engines, _MOST_QUEUED)
        return Asked(call, self._clock(), followers, shared, queue)

    def _left_group(self, call: PlacedCall) -> None:
        if call.group is not None:
            group = self._groups[call.group]
            group.members -= 1
            if not group.members:
                del self._groups[call.group]

    def _book(self, view: EngineView) -> Book:
        if (book := self._books.get(view.name)) is None:
            book = self._books[view.name] = Book.of(view)
        book.meet(view)
        return book


def _estimated(call: PlacedCall, cached: int | None, prompt: int | None) -> float | None:
    """Cached tokens in tokens as they are estimated."""
    return cached if cached is None or not prompt else cached / prompt * call.tokens
