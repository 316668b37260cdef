"""What a server and the process of its engine tell each other, and how that is written.

Down: `Generate`, `Tokenize`, `Cancel`, `Expect`, `Forget`. Up: `Loading`, now and then, `Ready` or
`NotStarted`, and then `Progress`, again and again. A frame is a header (the body's length in bytes,
the kind) and a body of JSON, where a field that has its default is left out. No pickle: a process that
has gone wrong can send nonsense, but nothing that runs.
"""

import asyncio
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from parrot_backend.endpoints.base import Card, Job
from parrot_backend.endpoints.process.troubles import Trouble
from parrot_backend.engines.base import Delta, EngineStats
from parrot_backend.engines.stages import Stage
from parrot_backend.wire.text_protocol import LLMRequest

MAX_FRAME_BYTES = 1 << 26
"""Twice the longest body that a client may send: whatever it asks for fits."""

_HEADER = struct.Struct(">IB")
# A token's bytes need not be text, and a logarithm may be infinite: JSON has neither by itself.
_CONFIG = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants")


class FrameError(Exception):
    """A frame can't be written, or what was read is none."""


class Frame(Protocol):
    """Anything below."""

    __pydantic_config__: ClassVar[ConfigDict]


@dataclass(frozen=True, slots=True)
class Generate:
    """Run a job, under a number that no other has had."""

    number: int
    job: Job
    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG


@dataclass(frozen=True, slots=True)
class Tokenize:
    """Tell the tokens of a request's prompt."""

    number: int
    request: LLMRequest
    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody waits for this number any more, which may have ended meanwhile."""

    number: int
    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG


@dataclass(frozen=True, slots=True)
class Expect:
    """What the examples begin with will be needed, until the number is forgotten."""

    number: int
    examples: Sequence[LLMRequest]
    tenant: str
    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG


@dataclass(frozen=True, slots=True)
class Forget:
    """The end of an `Expect`."""

    number: int
    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG


@dataclass(frozen=True, slots=True)
class Loading:
    """A heartbeat: the engine is not yet loaded, and that goes on."""

    stage: Stage
    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine is loaded."""

    card: Card
    stats: EngineStats
    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG


@dataclass(frozen=True, slots=True)
class NotStarted:
    """The engine can't be loaded; the process ends."""

    trouble: Trouble
    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG


@dataclass(frozen=True, slots=True)
class Progress:
    """All that came since the last one, in order for each number; where nothing did, a heartbeat."""

    stats: EngineStats
    deltas: list[tuple[int, Delta]] = field(default_factory=list)
    tokenized: list[tuple[int, list[int]]] = field(default_factory=list)
    failed: list[tuple[int, Trouble]] = field(default_factory=list)
    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG


_KINDS: tuple[type[Frame], ...] = (
    Generate, Tokenize, Cancel, Expect, Forget, Loading, Ready, NotStarted, Progress,
)  # fmt: skip
_NUMBERS = {kind: number for number, kind in enumerate(_KINDS)}
_ADAPTERS: list[TypeAdapter[Any]] = [TypeAdapter(kind) for kind in _KINDS]


def encoded(frame: Frame) -> bytes:
    """A frame as it is sent.

    Raises:
        FrameError: it is too long, or has text that is not valid Unicode.
    """
    number = _NUMBERS[type(frame)]
    try:
        body = _ADAPTERS[number].dump_json(frame, exclude_defaults=True)
    except PydanticSerializationError as error:
        raise FrameError(f"it is not valid Unicode: {error}") from None
    if len(body) > MAX_FRAME_BYTES:
        raise FrameError(f"it has {len(body)} bytes, the most are {MAX_FRAME_BYTES}")
    return _HEADER.pack(len(body), number) + body


async def read(reader: asyncio.StreamReader) -> Frame | None:
    """The next frame; None where the other side has ended, be it within a frame.

    Raises:
        FrameError: what came is no frame.
    """
    try:
        length, number = _HEADER.unpack(await reader.readexactly(_HEADER.size))
        if length > MAX_FRAME_BYTES or number >= len(_KINDS):
            raise FrameError(f"no frame begins with {length} bytes of kind {number}")
        body = await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    try:
        frame: Frame = _ADAPTERS[number].validate_json(body)
    except ValidationError as error:
        raise FrameError(f"no {_KINDS[number].__name__}: {error}") from None
    return frame
