"""Text that comes in pieces, and has to be held back where it may be the beginning of something."""

from collections.abc import Iterable


def possible_start(text: str, strings: Iterable[str]) -> int:
    """Length of the longest end of `text` that one of `strings`, which is not in it, begins with."""
    return max((_overlap(text, string) for string in strings), default=0)


def _overlap(text: str, string: str) -> int:
    longest = min(len(string) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if string.startswith(text[-n:])), 0)
