"""Tables of what was measured: a row for each way, and figures of several rounds in one cell."""

import statistics
from collections.abc import Sequence


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median, lowest and highest."""
    low, middle, high = (f"{f(values):.{digits}f}" for f in (min, statistics.median, max))
    return f"{middle} ({low}-{high})"


def print_table(heads: Sequence[str], rows: dict[str, list[str]], *, markdown: bool) -> None:
    """Rows by their names, under their heads."""
    lines = [["", *heads], *([name, *cells] for name, cells in rows.items())]
    if markdown:
        lines.insert(1, ["---"] * len(lines[0]))
        print("\n".join(f"| {' | '.join(line)} |" for line in lines))
        return
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for name, *line in lines:
        padded = (cell.rjust(width) for cell, width in zip(line, widths[1:], strict=True))
        print(f"  {name:{widths[0]}}  {'  '.join(padded)}")
