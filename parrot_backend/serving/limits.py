"""Bounds of the serving core: every table and queue has one, and what is over it gets a clear error."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Counts, seconds and bytes; one set per server."""

    sessions: int = 1024
    closed_sessions: int = 64
    calls_per_session: int = 10_000
    variables_per_session: int = 50_000
    concurrency_groups_per_session: int = 10_000
    events_per_session: int = 50_000
    session_idle_seconds: float = 600.0
    unfinished_calls: int = 20_000
    body_bytes: int = 32 * 2**20
    wait_seconds: float = 3600.0
