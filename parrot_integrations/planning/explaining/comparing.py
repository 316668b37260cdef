"""The same run with its plan and without, timed one after another.

The first pair pays what is paid once: connections, sources that are read, the prefix cache. Of the
second pair the native run comes last and finds at least as much in the cache as the planned one: what
the plan gained against it is not the cache's doing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from parrot_integrations.planning.explaining.marking import counted

Way = Literal["native", "planned"]

ORDER: tuple[Way, ...] = ("planned", "native", "planned", "native")


@dataclass(frozen=True, slots=True)
class Timed:
    """One run, the seconds that its caller waited for it, and whether it had something to submit."""

    way: Way
    seconds: float
    submitted: bool = False


def gained(runs: Sequence[Timed]) -> float | None:
    """Seconds by which the planned run was faster than the native run behind it.

    None where it submitted nothing: both were the same run, and what differs is chance.
    """
    *_, planned, native = runs
    return native.seconds - planned.seconds if planned.submitted else None


def compared(runs: Sequence[Timed]) -> str:
    """All runs in their order, and what the plan gained, as text for a terminal."""
    return "\n".join(
        [
            f"Compared ({counted(len(runs), 'run')} in this order; the first pays what is paid once, "
            "and each finds in the prefix cache what the ones before it left)",
            *(f"  {run.way:<8} {run.seconds:>8.3f} s" for run in runs),
            f"  {_outcome(runs)}",
        ]
    )


def _outcome(runs: Sequence[Timed]) -> str:
    last, gain = runs[-1].seconds, gained(runs)
    if gain is None:
        return "the plan had nothing to submit: all are the same run, and what differs is chance"
    share = f" ({100 * abs(gain) / last:.0f} %)" if last else ""
    verb = "gained" if gain >= 0 else "lost"
    won = f"the plan {verb} {abs(gain):.3f} s{share}"
    return f"{won} in the last pair, where the native run came second"
