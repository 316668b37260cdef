"""What each transform does to its texts: what Python's methods of `str` do, and JSON's fields.

What a transform writes is bounded, and known to be within the bound before it is built.
"""

import json
from typing import Any

from parrot_backend.wire.errors import DependencyError, InvalidRequestError
from parrot_backend.wire.transforms import Transform

LONGEST_TEXT = 2**22
"""Characters of what a transform writes and of one message: more than any context has tokens for."""
LONGEST_CASE = 3
"""Characters that one can become in the other case: the ligature of three letters does."""


def transformed(transform: Transform, texts: list[str]) -> str:
    """The value that the transform writes; `texts` are its inputs.

    Raises:
        DependencyError: its input is no JSON, or has nothing at the path or index.
        InvalidRequestError: the value would be too long.
    """
    check_length(_longest(transform, texts), transform.label)
    if transform.op == "join":
        return (transform.separator or "").join(texts)
    if transform.op == "json_field":
        return _json_field(transform, texts[0])
    result = getattr(texts[0], transform.op)(*transform.arguments)
    return str(result) if transform.op != "split" else _piece(transform, result)


def check_length(characters: int, label: str, param: str | None = None) -> None:
    """Refuse a text of so many characters, where they are too many.

    Raises:
        InvalidRequestError: they are.
    """
    if characters > LONGEST_TEXT:
        raise InvalidRequestError(
            f"{label} would come to {characters} characters, over the limit of {LONGEST_TEXT}",
            param=param,
            code="text_too_long",
        )


def _longest(transform: Transform, texts: list[str]) -> int:
    """How long the result can be at most."""
    given = sum(map(len, texts))
    match transform.op:
        case "join":
            return given + len(transform.separator or "") * max(len(texts) - 1, 0)
        case "replace":
            return given + _growth(transform, texts[0])
        case "lower" | "upper":
            return LONGEST_CASE * given
        case _:
            return given


def _growth(transform: Transform, text: str) -> int:
    """How much longer replacing makes the text."""
    old, new = transform.old or "", transform.new or ""
    growth = len(new) - len(old)
    if growth <= 0 or transform.count == 0:
        return 0
    found = text.count(old)
    return growth * (found if transform.count < 0 else min(found, transform.count))


def _piece(transform: Transform, pieces: list[str]) -> str:
    try:
        return pieces[transform.index]
    except IndexError:
        raise _unfit(transform, f"there are {len(pieces)} pieces") from None


def _json_field(transform: Transform, text: str) -> str:
    try:
        value: Any = json.loads(text)
        for step in transform.path:
            value = value[step]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise _unfit(transform, f"{type(error).__name__}: {error}") from None
    if not isinstance(value, str):
        raise _unfit(transform, f"it is a {type(value).__name__}, not a string")
    return value


def _unfit(transform: Transform, reason: str) -> DependencyError:
    message = f"{transform.label} finds no {transform.description} in its input: {reason}"
    return DependencyError(message, param=transform.output)
