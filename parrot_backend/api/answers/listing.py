"""Answers with long lists: made and sent in pieces, for one as a whole would hold up the loop."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from fastapi.responses import StreamingResponse

from parrot_backend.api.answers.json_pieces import json_pieces


def listing(lists: Mapping[str, Iterable[Any]]) -> StreamingResponse:
    """A JSON object of lists, whose items are made as they are sent."""
    return StreamingResponse(_pieces(lists), media_type="application/json")


async def _pieces(lists: Mapping[str, Iterable[Any]]) -> AsyncIterator[str]:
    for piece in json_pieces({name: iter(items) for name, items in lists.items()}):
        yield piece
        await asyncio.sleep(0)
