"""How far a start is: what is being fetched, converted, compiled or loaded, for those who wait.

One start runs in a process, and another of its threads tells of it; see `endpoints.process.child`.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a start: what is done, in a word or two, and how much of `total`, if that is known."""

    name: str = "starting"
    done: int = 0
    total: int = 0


_stage = Stage()


def begin(name: str, total: int = 0) -> None:
    """The start is at its next stage, of `total` bytes or pieces."""
    global _stage
    _stage = Stage(name, 0, total)


def advance(done: int) -> None:
    """So much of the stage is done."""
    global _stage
    _stage = replace(_stage, done=done)


def current() -> Stage:
    """Where the start is."""
    return _stage
