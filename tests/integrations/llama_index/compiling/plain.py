"""What of a value is the same in every run: no ids, no times, no addresses."""

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from functools import partial
from inspect import BoundArguments, isroutine
from typing import Any

from llama_index.core.chat_engine.types import StreamingAgentChatResponse
from pydantic import BaseModel

_IDS = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|(chatcmpl|chat|call|cmpl|request|session)[-_][0-9A-Za-z]{8,}"
    r"|(?<='id\\': \\')[\w/-]+|(?<='created\\': )\d+"
)
_ADDRESSES = re.compile(r" at 0x[0-9a-f]+")
_OF_ONE_ANSWER = {"id", "created", "cached_tokens", "callback_manager"}


def plain(value: Any) -> Any:
    """The value as data whose `repr` tells all of it."""
    match value:
        case None | bool() | int() | float() | bytes():
            return value
        case Enum():
            return str(value)
        case str():
            return _ADDRESSES.sub("", "".join(value))
        case type():
            return value.__qualname__
        case datetime():
            return "<time>"
        case BaseException():
            return (type(value).__name__, plain(str(value)))
        case BoundArguments():
            return plain(dict(value.arguments))
        case Mapping():
            kept = ((k, v) for k, v in value.items() if not _differs(k))
            return {str(plain(key)): plain(item) for key, item in kept}
        case list() | tuple():
            return [plain(item) for item in value]
        case set() | frozenset():
            return sorted(repr(plain(item)) for item in value)
        case BaseModel():
            return (type(value).__name__, plain(value.__dict__))
        case partial():
            return ("partial", plain(value.func), plain(value.args))
    if is_dataclass(value):
        names = [field.name for field in fields(value)]
        if isinstance(value, StreamingAgentChatResponse):  # a thread goes on writing to the rest
            names = ["sources", "source_nodes"]
        told = {name: getattr(value, name, None) for name in names}
        return (type(value).__name__, plain(told))
    if isroutine(value):
        return getattr(value, "__qualname__", str(value))
    return f"<{type(value).__name__}>"


def _differs(name: Any) -> bool:
    return name in _OF_ONE_ANSWER or str(name).startswith("queue")


class Names:
    """Ids as they come: the first is 1. With `alike`, one is as good as any other."""

    def __init__(self, alike: bool = False) -> None:
        self._alike = alike
        self._names: dict[str, str] = {}

    def text(self, value: Any) -> str:
        return _IDS.sub(self._name, repr(value))

    def _name(self, found: re.Match[str]) -> str:
        number = "id" if self._alike else str(len(self._names) + 1)
        return self._names.setdefault(found[0], f"<{number}>")
