"""`Counts`: what an upstream was asked for and has answered, as far as we see it."""

from dataclasses import replace

from parrot_backend.endpoints.upstream.metrics import Metrics
from parrot_backend.engines.base import Delta, EngineStats


class Counts:
    """Counts what we send; how full its memory is, the server tells, if it does."""

    def __init__(self) -> None:
        self._stats = EngineStats()
        self.metrics = Metrics()

    def ended(self, last: Delta, generated: int) -> None:
        """An answer has come to its end."""
        stats, cached = self._stats, last.cached_tokens
        self._stats = replace(
            stats,
            tokens_prefilled=stats.tokens_prefilled + max(last.prompt_tokens - cached, 0),
            tokens_shared=stats.tokens_shared + cached,
            tokens_generated=stats.tokens_generated + generated,
        )

    def ahead(self, *, prefilled: int = 0, used: int = 0, wasted: int = 0) -> None:
        """Something was computed before it was asked for; or was of use, or of none."""
        stats = self._stats
        self._stats = replace(
            stats,
            tokens_prefilled_ahead=stats.tokens_prefilled_ahead + prefilled,
            tokens_ahead_used=stats.tokens_ahead_used + used,
            tokens_ahead_wasted=stats.tokens_ahead_wasted + wasted,
        )

    def told(self, running: int, waiting: int, kv_tokens: int | None) -> EngineStats:
        """The load and the counts, at this moment."""
        capacity = kv_tokens or 0
        return replace(
            self._stats,
            running=running,
            waiting=waiting,
            kv_capacity_tokens=capacity,
            kv_used_tokens=round(self.metrics.used * capacity),
        )
