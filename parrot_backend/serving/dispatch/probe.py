"""Whether two endpoints tokenize alike: what one has begun, another can only go on with if they do."""

import asyncio

from parrot_backend.endpoints.base import Endpoint
from parrot_backend.wire.errors import ParrotError
from parrot_backend.wire.text_protocol import PromptRequest

_TEXT = (
    "Parrots: 3,141 of them, na\u00efve \u6f22\u5b57 \u2192 \U0001f99c\n\tdef f(x):\n\t\treturn x"
)
_SECONDS = 10.0


async def tokenize_alike(one: Endpoint, other: Endpoint) -> bool:
    """Whether both make the same tokens of a text, or one of them can't tell.

    A token for the beginning of the text, which one may put before it, makes no difference.
    """
    first, second = await asyncio.gather(_tokens(one), _tokens(other))
    if first is None or second is None:
        return True
    return first == second or first[1:] == second or first == second[1:]


async def _tokens(endpoint: Endpoint) -> list[int] | None:
    try:
        async with asyncio.timeout(_SECONDS):
            return await endpoint.tokenize(PromptRequest(prompt=_TEXT))
    except (ParrotError, TimeoutError):
        return None
