"""`Finding`: what one check found, and the table of them."""

import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["ok", "missing", "unknown", "warning", "fault"]
"""As it should be; an engine has it not; could not be told; it works, but; it does not work."""

_NARROWEST = 24
_GAP = "  "


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table.

    Attributes:
        check: what was looked at, in a few words.
        level: how it is.
        found: what was seen.
        advice: what that costs, or what to do about it; empty where all is well.
        facts: what of it goes on the engine's card, by the names of `MeasuredCard`; None is what an
            engine has not, while what could not be told is not there.
    """

    check: str
    level: Level
    found: str
    advice: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, str]:
        """For programs."""
        told = {"check": self.check, "level": self.level, "found": self.found}
        return {**told, "advice": self.advice} if self.advice else told


def table(findings: Sequence[Finding], advice: str, width: int | None = None) -> str:
    """The findings under their heads, as wide as the terminal; `advice` is the last column's head."""
    width = width or shutil.get_terminal_size((120, 24)).columns
    rows = [("CHECK", "", "FOUND", advice)]
    rows += [(each.check, each.level, each.found, each.advice) for each in findings]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    left = max(2 * _NARROWEST, width - first - second - 3 * len(_GAP))
    fourth = max(_NARROWEST, min(max(len(row[3]) for row in rows), left * 3 // 5))
    third = max(_NARROWEST, min(max(len(row[2]) for row in rows), left - fourth))
    widths = (first, second, third, fourth)
    return "\n".join(line for row in rows for line in _lines(row, widths))


def _lines(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    """A row, as many lines high as its highest cell."""
    cells = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, widths, strict=True)]
    for line in range(max(map(len, cells))):
        parts = (cell[line] if line < len(cell) else "" for cell in cells)
        yield _GAP.join(
            part.ljust(width) for part, width in zip(parts, widths, strict=True)
        ).rstrip()
