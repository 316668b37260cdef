"""How the results of `overhead.py` are printed."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from pairs import Measured

HEADS = ("chain", "calls", "claimed", "dependent", "ahead", "added ms per call", "ratio")


@dataclass(frozen=True, slots=True)
class Row:
    """A chain's results: where calls are answered at once, and where they take their time."""

    name: str
    calls: int
    at_once: Measured
    later: Measured

    @property
    def added(self) -> float:
        """Milliseconds that compiling adds to each call."""
        return statistics.median(self.at_once.added()) / self.calls

    @property
    def ratio(self) -> float:
        """Compiled over native where calls take their time."""
        return statistics.median(self.later.ratios())

    def cells(self) -> list[str]:
        """As text, under `HEADS`."""
        low, _, high = statistics.quantiles(self.at_once.added(), n=4)
        ratios, later = self.later.ratios(), self.later
        return [
            self.name,
            *map(str, (self.calls, later.claimed, later.dependent, later.ahead)),
            f"{self.added:.2f} ({low / self.calls:.2f} to {high / self.calls:.2f})",
            f"{self.ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        ]


def print_table(rows: list[Row], markdown: bool) -> None:
    """The rows under their heads."""
    lines = [list(HEADS), *(row.cells() for row in rows)]
    if markdown:
        lines.insert(1, ["---"] * len(HEADS))
        print("\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in lines))
        return
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print()
    for first, *others in lines:
        padded = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        print(f"{first:{widths[0]}}  {'  '.join(padded)}")


def print_sums(rows: list[Row]) -> None:
    """All chains together, beside the floor."""
    calls = sum(row.calls for row in rows)
    claimed = sum(row.later.claimed for row in rows)
    dependent = sum(row.later.dependent for row in rows)
    ahead = sum(row.later.ahead for row in rows)
    costliest = max(rows, key=lambda row: row.added)
    slowest = max(rows, key=lambda row: row.ratio)
    print(
        f"\n{len(rows)} chains, {calls} calls: {claimed} claimed ({claimed / calls:.0%}), "
        f"{dependent} dependent, {ahead} ahead (together {(dependent + ahead) / calls:.0%})\n"
        f"added per call: median {statistics.median(row.added for row in rows):.2f} ms, "
        f"worst {costliest.added:.2f} ms ({costliest.name})\n"
        f"ratio: median {statistics.median(row.ratio for row in rows):.2f}, "
        f"worst {slowest.ratio:.2f} ({slowest.name})\n"
        f"above 1.10: {_names(row.name for row in rows if row.ratio > 1.1)}\n"
        f"slower than every native run: {_names(row.name for row in rows if row.later.slower())}"
    )


def _names(names: Iterable[str]) -> str:
    return "; ".join(names) or "none"
