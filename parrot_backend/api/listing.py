"""Answers with long lists: made and sent in pieces, for one as a whole would hold up the loop."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from itertools import islice
from typing import Any

import pydantic_core
from fastapi.responses import StreamingResponse

_ITEMS = 100
"""They take a few milliseconds to be made."""


def listing(lists: Mapping[str, Iterable[Any]]) -> StreamingResponse:
    """A JSON object of lists, whose items are made as they are sent."""
    return StreamingResponse(_pieces(lists), media_type="application/json")


async def _pieces(lists: Mapping[str, Iterable[Any]]) -> AsyncIterator[bytes]:
    opening = b"{"
    for name, items in lists.items():
        yield opening + pydantic_core.to_json(name) + b":["
        separator, left = b"", iter(items)
        while chunk := list(islice(left, _ITEMS)):
            yield separator + pydantic_core.to_json(chunk)[1:-1]
            separator = b","
            await asyncio.sleep(0)
        yield b"]"
        opening = b","
    yield b"}"
