"""What ends a reading."""

import ast

from parrot_integrations.planning.values import BreakError

_WIDTH = 60

NEEDS_THE_TEXT = "needs the text itself"


class UnreadableError(Exception):
    """A part of a function can't be read; where it stands, who evaluates it says."""


class RefusalError(BreakError):
    """A function raises on purpose, where that is known: the run ends there, if nobody catches it."""


def raises(error: BaseException) -> UnreadableError:
    """What is read would raise this: there is nothing to plan behind it."""
    return UnreadableError(f"raises {type(error).__name__}")


def located(problem: UnreadableError, node: ast.AST) -> BreakError:
    """The break that names a line, and what stands there."""
    code = " ".join(ast.unparse(node).split())
    code = code if len(code) <= _WIDTH else f"{code[: _WIDTH - 1]}…"
    return unread(f"line {getattr(node, 'lineno', '?')}: `{code}` {problem}")


def refused(node: ast.AST) -> RefusalError:
    """The break at a `raise` that the run will come to."""
    return RefusalError(
        f"raises at line {getattr(node, 'lineno', '?')} for this input",
        "No call of this input is sent ahead, for the run is expected to end here.",
    )


def unread(reason: str) -> BreakError:
    """The break of a function that can't be read."""
    return BreakError(
        f"is a function of yours that can't be read: {reason}",
        "For a key use itemgetter or pick, for a join join_texts(separator); declare what else it "
        "does to a text by @semantic_transform.",
    )
