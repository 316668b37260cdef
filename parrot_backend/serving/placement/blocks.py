"""Blocks: prompts cut into pieces, each numbered with all that is before it.

    "You are ... | ... a clerk. | Sort this"        prompt of tenant "a"
         h1           h2 = hash(h1, text)           blocks; the rest, shorter than one, is no block

So that two prompts have a block in common only where they are the same up to its end, and how much they
have in common is found by bisection: `common`.
"""

from bisect import bisect_left
from collections.abc import Container, Sequence

from parrot_backend.wire.text_protocol import LLMRequest, PromptRequest

BLOCK_TOKENS = 64
"""About how many tokens a block has."""

_CHARACTERS = 256  # of a block: BLOCK_TOKENS, four characters each
_MOST = 512  # blocks of a prompt; what is behind them, 32,000 tokens, is not compared


def blocks_of(request: LLMRequest, tenant: str = "", most: int = _MOST) -> tuple[int, ...]:
    """A number for each block of the prompt, that another tenant's prompt doesn't have."""
    number, size = hash(tenant), _CHARACTERS
    prompt: str | tuple[int, ...]
    if not isinstance(request, PromptRequest):
        tools = getattr(request, "tools", None)
        lines = [repr(tools)] if tools else []  # templates put them first
        prompt = "\0".join(lines + [f"{m.role}\0{m.content}" for m in request.messages])
    elif isinstance(request.prompt, str):
        prompt = request.prompt
    else:
        prompt, size = tuple(request.prompt), BLOCK_TOKENS
    blocks = []
    for end in range(size, min(len(prompt), size * most) + 1, size):
        number = hash((number, prompt[end - size : end]))
        blocks.append(number)
    return tuple(blocks)


def leading(blocks: Sequence[int], among: Container[object]) -> int:
    """How many blocks from the first on are among some that have none without those before it."""
    if not blocks or blocks[0] not in among:
        return 0
    if blocks[-1] in among:
        return len(blocks)
    there, not_there = 0, len(blocks) - 1
    while not_there - there > 1:
        middle = (there + not_there) // 2
        if blocks[middle] in among:
            there = middle
        else:
            not_there = middle
    return not_there


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many blocks two prompts begin with alike."""
    shorter = range(min(len(one), len(other)))
    if not shorter or one[0] != other[0]:
        return 0
    return bisect_left(shorter, True, key=lambda at: one[at] != other[at])
