"""JSON, decoded in pieces and within bounds.

What is small is left to the standard library's scanner, a window of text at a time; containers and
strings that go beyond a window are walked here. Behind the beginning of such a container, a window's
length of it is walked, whatever is nested there, so that each character is scanned a few times at most.
"""

import json
import re
from json import JSONDecodeError
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

from parrot_backend.api.pieces import Steps
from parrot_backend.wire.errors import InvalidRequestError, PayloadTooLargeError

MOST_VALUES = 1_000_000
MOST_KEYS = 10_000
DEEPEST = 128

_WINDOW = 2**15
_PAUSE = 500  # values between two steps
_SPACES = frozenset(" \t\n\r")
_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?[0-9]")
_UNESCAPED = re.compile(r'(?:[^"\\]++|\\u[0-9a-fA-F]{4}|\\[^u])*+', re.DOTALL)
_STRING_OR_OTHER = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[^"]++', re.DOTALL)
_HIGH_SURROGATE = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}")
_scan = json.JSONDecoder().raw_decode


def decode(text: str) -> Steps[Any]:
    """The value that a JSON text stands for.

    Raises:
        InvalidRequestError: it is no JSON, or nested too deep, or an object or number is too large.
        PayloadTooLargeError: it has more than `MOST_VALUES` values.
    """
    if text.count(",") >= MOST_VALUES:
        yield from _check_commas(text)
    try:
        return (yield from _Decoder(text).document())
    except JSONDecodeError as error:
        raise _invalid(error.msg) from None


class _Decoder:
    def __init__(self, text: str) -> None:
        self._text = text
        self._window = ""
        self._base = 0
        self._walked = 0  # containers that begin before this are not scanned
        self._values = 0
        self._pause = _PAUSE

    def document(self) -> Steps[Any]:
        value, end = yield from self._value(self._skip(0), 1)
        if (end := self._skip(end)) != len(self._text):
            raise JSONDecodeError("Extra data", self._text, end)
        return value

    def _value(self, at: int, depth: int) -> Steps[tuple[Any, int]]:
        """The value at `at`, which is inside of `depth` - 1 containers, and where it ends."""
        walked = at < self._walked and self._text.startswith(("[", "{"), at)
        if walked or (found := self._small(at)) is None:
            if not walked:
                self._walked = at + _WINDOW
                yield
            found = yield from self._large(at, depth)
        elif isinstance(found[0], dict | list):
            self._values += measure(found[0], depth)
        else:
            self._values += 1
        if self._values > MOST_VALUES:
            raise _too_many_values()
        if self._values > self._pause:
            self._pause = self._values + _PAUSE
            yield
        return found

    def _large(self, at: int, depth: int) -> Steps[tuple[Any, int]]:
        """The same, in pieces."""
        self._values += 1
        match self._text[at : at + 1]:
            case "[":
                return (yield from self._array(at, depth))
            case "{":
                return (yield from self._object(at, depth))
            case '"':
                return (yield from self._string(at))
        if len(self._text) - at > _WINDOW and _NUMBER.match(self._text, at):
            raise _invalid("a number is too long")
        raise JSONDecodeError("Expecting value", self._text, at)

    def _small(self, at: int) -> tuple[Any, int] | None:
        """The value at `at` and its end, if both are in one window."""
        while True:
            if not self._base <= at < self._base + len(self._window):
                self._base = at
                self._window = self._text[at : at + _WINDOW]
            end = -1
            try:
                value, end = _scan(self._window, at - self._base)
            except RecursionError:
                raise _too_deep() from None
            except JSONDecodeError:
                pass
            except ValueError:  # of an integer, which may be the beginning of something else
                if self._base == at:
                    raise _invalid("a number is too long") from None
            # A number near the end of the window may go on too, with a fraction or as "e+9".
            whole = self._window[end - 1 : end] in ('"', "]", "}") or end + 2 < len(self._window)
            last = self._base + len(self._window) == len(self._text)
            if end > 0 and (whole or last):
                return value, self._base + end
            if self._base == at:
                return None
            self._window = ""

    def _array(self, at: int, depth: int) -> Steps[tuple[list[Any], int]]:
        self._enter(depth)
        items: list[Any] = []
        at = self._skip(at + 1)
        if self._text[at : at + 1] == "]":
            return items, at + 1
        while True:
            item, at = yield from self._value(at, depth + 1)
            items.append(item)
            at, ended = self._next(at, "]")
            if ended:
                return items, at

    def _object(self, at: int, depth: int) -> Steps[tuple[dict[str, Any], int]]:
        self._enter(depth)
        members: dict[str, Any] = {}
        at, count = self._skip(at + 1), 0
        if self._text[at : at + 1] == "}":
            return members, at + 1
        while True:
            if self._text[at : at + 1] != '"':
                message = "Expecting property name enclosed in double quotes"
                raise JSONDecodeError(message, self._text, at)
            key, at = yield from self._string(at)
            if self._text[(at := self._skip(at)) : at + 1] != ":":
                raise JSONDecodeError("Expecting ':' delimiter", self._text, at)
            members[key], at = yield from self._value(self._skip(at + 1), depth + 1)
            if (count := count + 1) > MOST_KEYS:
                raise _too_many_keys()
            at, ended = self._next(at, "}")
            if ended:
                return members, at

    def _string(self, at: int) -> Steps[tuple[str, int]]:
        """In runs that end between two characters, for an escape may be half in a window."""
        parts: list[str] = []
        begin = at + 1
        while True:
            end = _UNESCAPED.match(self._text, begin, begin + _WINDOW).end()  # type: ignore[union-attr]
            closed = self._text[end : end + 1] == '"'
            if not closed and _HIGH_SURROGATE.fullmatch(self._text, max(begin, end - 6), end):
                end -= 6
            if not closed and end == begin:
                scanstring(self._text[: begin + 12], begin)  # it can't go on: this says why
                raise JSONDecodeError("Invalid \\escape", self._text, begin)
            parts.append(scanstring(f'{self._text[begin:end]}"', 0)[0])
            if closed:
                return "".join(parts), end + 1
            begin = end
            yield

    def _next(self, at: int, closing: str) -> tuple[int, bool]:
        """Where the next member begins, or where the container ends."""
        at = self._skip(at)
        found = self._text[at : at + 1]
        if found == closing:
            return at + 1, True
        if found != ",":
            raise JSONDecodeError("Expecting ',' delimiter", self._text, at)
        return self._skip(at + 1), False

    def _skip(self, at: int) -> int:
        if self._text[at : at + 1] not in _SPACES:
            return at
        return _SPACE.match(self._text, at).end()  # type: ignore[union-attr]

    def _enter(self, depth: int) -> None:
        if depth > DEEPEST:
            raise _too_deep()


def _check_commas(text: str) -> Steps[None]:
    """Refuse what has too many values before any of them is made: there is a comma between two."""
    commas = 0
    for number, found in enumerate(_STRING_OR_OTHER.finditer(text)):
        if not found[0].startswith('"'):
            commas += found[0].count(",")
        if commas >= MOST_VALUES:
            raise _too_many_values()
        if number % _PAUSE == 0:
            yield


def measure(value: Any, depth: int) -> int:
    """How many values a decoded one holds, itself included.

    Raises:
        InvalidRequestError: it goes below `DEEPEST` where it is at `depth`, or has a large object.
    """
    count, level = 1, [value]
    while level := [one for one in level if isinstance(one, dict | list)]:
        if depth > DEEPEST:
            raise _too_deep()
        below: list[Any] = []
        for one in level:
            if isinstance(one, list):
                below += one
                continue
            if len(one) > MOST_KEYS:
                raise _too_many_keys()
            below += one.values()
        count += len(below)
        level, depth = below, depth + 1
    return count


def _invalid(reason: str) -> InvalidRequestError:
    return InvalidRequestError(f"the request body is not valid JSON: {reason}")


def _too_deep() -> InvalidRequestError:
    return InvalidRequestError(
        f"the request body is nested more than {DEEPEST} levels deep", code="nested_too_deep"
    )


def _too_many_keys() -> InvalidRequestError:
    return InvalidRequestError(
        f"an object in the request body has more than {MOST_KEYS} keys", code="too_many_keys"
    )


def _too_many_values() -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"the request body has more than {MOST_VALUES} values: send it in parts",
        code="too_many_values",
    )
