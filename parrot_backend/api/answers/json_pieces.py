"""JSON of any size, encoded in pieces: as a whole it would hold up the event loop."""

import json
from collections.abc import Generator, Iterator
from typing import Any

from pydantic import BaseModel

PIECE_CHARACTERS = 2**15
"""They take a few milliseconds to be made."""

_encoded = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def json_pieces(value: Any) -> Generator[str, None, None]:
    """The JSON of a value, as `JSONResponse` has it, in pieces of about `PIECE_CHARACTERS`.

    Iterators in it become lists, whose items are made as they are encoded; models may be among them.
    """
    gathered: list[str] = []
    size = 0
    for part in _parts(value):
        gathered.append(part)
        size += len(part)
        if size >= PIECE_CHARACTERS:
            yield "".join(gathered)
            gathered, size = [], 0
    yield "".join(gathered)


def _parts(value: Any) -> Iterator[str]:
    """What holds neither iterators nor objects is encoded in one go."""
    if isinstance(value, Iterator):
        opening = "["
        for item in value:
            yield opening
            yield from _parts(item)
            opening = ","
        yield "[]" if opening == "[" else "]"
    elif isinstance(value, BaseModel):
        yield value.model_dump_json()
    elif isinstance(value, dict) and any(isinstance(v, Iterator | dict) for v in value.values()):
        opening = "{"
        for name, item in value.items():
            yield f"{opening}{_encoded(name)}:"
            yield from _parts(item)
            opening = ","
        yield "}"
    else:
        yield _encoded(value)
