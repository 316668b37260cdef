"""Values that are turned into text by no code but that of Python and LangChain."""

from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, EnumMeta
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from langchain_core.documents import Document
from langchain_core.messages.base import TextAccessor

_PLAIN = (
    *(str, int, float, bool, type(None), TextAccessor),
    *(date, timedelta, Decimal, Fraction, UUID),
    *(type(Path()), PurePosixPath, PureWindowsPath),
)
_TIMED = (datetime, time)
_ZONES: tuple[type[tzinfo] | type[None], ...] = (timezone, ZoneInfo, type(None))

_FORMATS = (Enum.__format__, str.__format__, int.__format__, object.__format__)
_TEXTS = (Enum.__str__, str.__str__, int.__repr__)
_LOOKUPS = tuple(kind.__getattribute__ for kind in (object, str, int))


def is_plain(value: Any) -> bool:
    """Whether turning it into text runs no code of the user's: exact types only."""
    if type(value) in (list, tuple):
        return all(_is_plain_inside(item) for item in value)
    if type(value) is dict:
        return all(_is_plain_inside(item) for pair in value.items() for item in pair)
    return _is_plain_inside(value) or _is_plain_enum(value)


def _is_plain_inside(value: Any) -> bool:
    """In a container its `repr` is taken, which an enum may have made its own."""
    if type(value) in (list, tuple, dict):
        return is_plain(value)
    if type(value) in _TIMED:
        return type(value.tzinfo) in _ZONES
    if type(value) is Document:
        return is_plain(vars(value))
    return type(value) in _PLAIN


def _is_plain_enum(value: Any) -> bool:
    """Whether it is written as enums usually are: its class has no methods of its own for that."""
    kind = type(value)
    if type(kind) is not EnumMeta or not issubclass(kind, Enum):
        return False
    usual = kind.__format__ in _FORMATS and kind.__str__ in _TEXTS
    return usual and kind.__getattribute__ in _LOOKUPS
