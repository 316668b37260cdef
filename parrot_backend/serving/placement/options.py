"""What a call can do at one engine, and what each would cost.

now       it has a place: what is cached there counts, what isn't is computed
behind    a call that runs there computes, or on slots has, more of it: wait for that one
a place   all are taken, but what it has cached may be worth the wait
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from parrot_backend.serving.placement.books import Book, Run
from parrot_backend.serving.placement.cost import (
    cost,
    crowding,
    seconds,
    wait_for_place,
    waiting_pays,
)
from parrot_backend.serving.placement.views import EngineView, PlacedCall
from parrot_backend.serving.placement.waits import FREED, Waits

_WORTH_A_WAIT = 2  # blocks that an engine without a place has of a call


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that asks at `now`: `followers` others wait that share its first `shared` blocks, and for
    each engine `queue` calls in all."""

    call: PlacedCall
    now: float
    followers: int
    shared: int
    queue: float


@dataclass(frozen=True, slots=True)
class Seen:
    """An engine, the blocks that a call finds there, and who runs that has how many more."""

    view: EngineView
    book: Book
    held: int
    leader: tuple[Run, int] | None

    @classmethod
    def of(cls, view: EngineView, book: Book, call: PlacedCall) -> "Seen":
        """What a call finds at this moment."""
        return cls(view, book, book.held(call), book.leader(call))


@dataclass(frozen=True, slots=True)
class Option:
    """Go to an engine, or `wait` so many seconds for it, behind a leader or for a place."""

    cost: float
    engine: str
    wait: float | None = None
    leader: PlacedCall | None = None


def options(asked: Asked, seen: Seen, waits: Waits) -> Iterator[Option]:
    """All that a call can do at an engine; each place goes to one of those that wait there first."""
    view, book, held, call = seen.view, seen.book, seen.held, asked.call
    parked = waits.at(view.name)
    short = parked + 1 - view.free
    place = wait_for_place(book, short) + book.stalled(asked.now) if short > 0 else 0.0
    crowd = crowding(view, book, call, held, asked.followers, asked.shared)
    here = partial(cost, view, book, call, parked=parked, queue=asked.queue)
    may_wait = held >= _WORTH_A_WAIT and book.runs and parked < view.slots
    if view.free or may_wait:
        late = 0.0 if seen.leader is None else book.late(seen.leader[0], asked.now)
        now = here(held, place + max(book.speed.prefill(book.pending), late))
        yield Option(now + crowd, view.name, None if view.free else place)
    if seen.leader is not None and waiting_pays(call, held, seen.leader[1], seen.leader[0]):
        (run, blocks), turn = seen.leader, book.left(seen.leader[0], asked.now)
        if book.slots is not None:
            if parked >= max(view.slots, FREED):
                return
            turn += waits.behind(run.call) * seconds(view, book, call, blocks)
        then = here(blocks, max(turn, place))
        yield Option(then + crowd, view.name, max(turn, place), run.call)
