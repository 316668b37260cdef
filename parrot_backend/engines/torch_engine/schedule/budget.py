"""How many prompt tokens a step computes: as many as fit into the time that others can wait for it.

While a step is computed no stream goes on and nobody is cancelled. How long so many tokens take depends
on the model, the machine, what else it does, and how far into their prompts they are: so it is learned
from step to step.
"""

from parrot_backend.engines.torch_engine.schedule.ahead import TILE_ROWS

# Fewer rows take hardly less time, which is that of reading the weights; nor do they tell of more.
_FEWEST = 8 * TILE_ROWS
# Until a step has told.
_FIRST = 128
# A step's part in what is known: a burst of others' work is forgotten after some steps.
_NEWS = 0.3


class PrefillBudget:
    """Prompt tokens for the next step.

    Args:
        most: more are never computed.
        seconds: what a step should take; None computes `most` always.
    """

    def __init__(self, most: int, seconds: float | None) -> None:
        self._most, self._seconds = most, seconds
        self._per_row: float | None = None

    @property
    def tokens(self) -> int:
        """So many; at least what a step has room for anyway."""
        if self._seconds is None:
            return self._most
        fitting = _FIRST if self._per_row is None else int(self._seconds / self._per_row)
        return min(self._most, max(_FEWEST, fitting // TILE_ROWS * TILE_ROWS))

    def learn(self, rows: int, seconds: float) -> None:
        """A step of so many rows took so long."""
        if rows < _FEWEST:
            return
        told = seconds / rows
        known = told if self._per_row is None else self._per_row
        self._per_row = known + _NEWS * (told - known)
