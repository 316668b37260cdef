"""A sequence's turn in a step: it chooses one token, and as many more as its draft foresaw."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

from parrot_backend.engines.torch_engine.scheduler import Work
from parrot_backend.errors import ParrotError


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
