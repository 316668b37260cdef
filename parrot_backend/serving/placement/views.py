"""The nouns of placement: a call, and an engine as it stands at this moment."""

from collections.abc import Hashable
from dataclasses import dataclass

from parrot_backend.endpoints.base import Sharing


@dataclass(frozen=True, slots=True, eq=False)
class PlacedCall:
    """What counts of a call for its place. Two are the same only where they are one object.

    `blocks` are the hashes of its prompt's blocks (`blocks_of`), its tenant's name within them;
    `tokens` and `answer_tokens` are estimates. A `group` is a task group of `group_size` members,
    ended ones included. Somebody waits for an `interactive` one alone. `key` is whatever the caller
    knows it by.
    """

    id: str
    tenant: str = ""
    blocks: tuple[int, ...] = ()
    tokens: int = 0
    answer_tokens: float = 128.0
    group: Hashable | None = None
    group_size: int = 1
    interactive: bool = False
    key: object = None


@dataclass(frozen=True, slots=True)
class EngineView:
    """An engine as it stands: its card, its operator's `weight`, and what runs there.

    `tokens_per_second` are prompt tokens that it is likely to compute in a second, until what it does
    is known. `room` is how many calls like the one in question it takes at once, `slots - running`
    where that is None; one that preempts has more for some than for others.
    """

    name: str
    slots: int
    running: int = 0
    sharing: Sharing = "batch"
    kv_tokens: int | None = None
    weight: float = 1.0
    tokens_per_second: float = 1000.0
    interactive_running: int = 0
    ready: bool = True
    room: int | None = None

    @property
    def free(self) -> int:
        """How many calls it takes now."""
        if not self.ready:
            return 0
        return max(0, self.slots - self.running if self.room is None else self.room)
