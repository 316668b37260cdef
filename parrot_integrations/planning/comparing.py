"""The same run with its plan and without, timed one after another.

The native run before warms the prefix cache for both, and the one behind finds at least as much in it
as the planned one: what the plan gained against that one is not the cache's doing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from parrot_integrations.planning.marking import counted

Way = Literal["native", "planned"]

ORDER: tuple[Way, ...] = ("native", "planned", "native")


@dataclass(frozen=True, slots=True)
class Timed:
    """One run and the seconds that its caller waited for it."""

    way: Way
    seconds: float


def gained(runs: Sequence[Timed]) -> float:
    """Seconds by which the planned run was faster than the native run behind it."""
    *_, planned, native = runs
    return native.seconds - planned.seconds


def compared(runs: Sequence[Timed]) -> str:
    """All runs in their order, and what the plan gained, as text for a terminal."""
    last, gain = runs[-1].seconds, gained(runs)
    share = f" ({100 * gain / last:.0f} %)" if last else ""
    return "\n".join(
        [
            f"Compared ({counted(len(runs), 'run')} in this order; each finds in the prefix cache what "
            "the ones before it left)",
            *(f"  {run.way:<8} {run.seconds:>8.3f} s" for run in runs),
            f"  the plan gained {gain:.3f} s{share} against the native run behind it",
        ]
    )
