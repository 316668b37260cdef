"""What each transform does to its texts: what Python's methods of `str` do, and JSON's fields.

What a transform writes is bounded, and known to be within the bound before it is built.
"""

import json
from typing import Any

from parrot_backend.wire.errors import DependencyError, InvalidRequestError
from parrot_backend.wire.transforms import Transform
from parrot_backend.wire.unicode import checked_text

LONGEST_TEXT = 2**22
"""Characters of what a transform writes and of one message: more than any context has tokens for."""
LONGEST_CASE = 3
"""Characters that one can become in the other case: the ligature of three letters does."""


class JsonReader:
    """Parses JSON texts; of several fields that are read one after another, the text is parsed once.

    It holds the last text that it has read: keep it as long as what becomes ready at once is rendered.
    """

    def __init__(self) -> None:
        self._text: str | None = None
        self._value: Any = None
        self._error: Exception | None = None

    def read(self, text: str) -> Any:
        """What the text says.

        Raises:
            ValueError: it is no JSON.
            RecursionError: it is nested too deep.
        """
        if text != self._text:
            self._text, self._value, self._error = text, None, None
            try:
                self._value = json.loads(text)
            except (ValueError, RecursionError) as error:
                self._error = error
        if self._error is not None:
            raise self._error.with_traceback(None)
        return self._value


def transformed(
    transform: Transform,
    texts: list[str],
    *,
    most: int | None = None,
    reader: JsonReader | None = None,
) -> str:
    """The value that the transform writes.

    Args:
        transform: what is done.
        texts: its inputs.
        most: characters that the value may have, where that is less than any text may.
        reader: what has read JSON before.

    Raises:
        DependencyError: its input is no JSON, or has nothing at the path or index.
        InvalidRequestError: the value would be too long.
    """
    check_length(transformed_length(transform, texts), transform.label, most=most)
    if transform.op == "join":
        return (transform.separator or "").join(texts)
    if transform.op == "json_field":
        return _json_field(transform, texts[0], reader or JsonReader())
    result = getattr(texts[0], transform.op)(*transform.arguments)
    return str(result) if transform.op != "split" else _piece(transform, result)


def check_length(
    characters: int, label: str, param: str | None = None, *, most: int | None = None
) -> None:
    """Refuse a text of so many characters, where they are too many.

    Raises:
        InvalidRequestError: they are more than `most`, or than any text may have.
    """
    most = LONGEST_TEXT if most is None else min(most, LONGEST_TEXT)
    if characters > most:
        raise InvalidRequestError(
            f"{label} would come to {characters} characters, over the limit of {most}",
            param=param,
            code="text_too_long",
        )


def transformed_length(transform: Transform, texts: list[str]) -> int:
    """How long the value is that the transform writes, known before it is built.

    Of what takes something away it is the length of what is given; of letters whose other case may be
    longer, the longest that it can be.
    """
    given = sum(map(len, texts))
    match transform.op:
        case "join":
            return given + len(transform.separator or "") * max(len(texts) - 1, 0)
        case "replace":
            return given + _growth(transform, texts[0])
        case "lower" | "upper":
            return given if texts[0].isascii() else LONGEST_CASE * given
        case _:
            return given


def _growth(transform: Transform, text: str) -> int:
    """How much longer replacing makes the text; 0 where it gets shorter."""
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


def _json_field(transform: Transform, text: str, reader: JsonReader) -> str:
    try:
        value = reader.read(text)
        for step in transform.path:
            value = value[step]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise _unfit(transform, f"{type(error).__name__}: {error}") from None
    if not isinstance(value, str):
        raise _unfit(transform, f"it is a {type(value).__name__}, not a string")
    try:
        return checked_text(value)
    except ValueError as error:  # JSON can name halves of characters
        raise _unfit(transform, str(error)) from None


def _unfit(transform: Transform, reason: str) -> DependencyError:
    message = f"{transform.label} finds no {transform.description} in its input: {reason}"
    return DependencyError(message, param=transform.output)
