"""The tokens of an answer."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class TokenCounts(NamedTuple):
    """All in tokens; `cached` are those of the prompt that were in the prefix cache."""

    prompt: int
    completion: int
    total: int
    cached: int


def token_counts(usage: Mapping[str, Any] | None) -> TokenCounts | None:
    """Those of an answer's `usage`; None where it tells none."""
    if not usage:
        return None
    details = usage.get("prompt_tokens_details") or {}
    return TokenCounts(
        usage["prompt_tokens"],
        usage["completion_tokens"],
        usage["total_tokens"],
        details.get("cached_tokens") or 0,
    )
