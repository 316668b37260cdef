"""Bounds of the serving core: every table, queue and wait has one, and what is over it is refused."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Counts, seconds and bytes; one set per server.

    The open sessions hold `session_bytes` of texts together. A session is closed when nobody has used
    it for `session_idle_seconds`; what is planned in it and nobody has asked for stops after
    `plan_grace_seconds`. Closed ones can be looked into for `closed_session_seconds`, as long as all
    of a tenant hold less than `closed_session_bytes`. A call ends within `call_seconds` of its inputs,
    after at most `attempts` on endpoints that died under it; one that waits has turns of its own after
    `aging_seconds`. An engine that is removed has `drain_seconds` for what it runs. Bodies that are
    being read or worked on hold at most `bodies_bytes` together, and each, as the headers before it,
    has to come in time.
    """

    sessions: int = 1024
    closed_session_seconds: float = 600.0
    closed_session_bytes: int = 64 * 2**20
    calls_per_session: int = 10_000
    variables_per_session: int = 50_000
    concurrency_groups_per_session: int = 10_000
    events_per_session: int = 50_000
    session_bytes: int = 2**30
    session_idle_seconds: float = 600.0
    plan_grace_seconds: float = 60.0
    unfinished_calls: int = 20_000
    call_seconds: float = 3600.0
    attempts: int = 3
    drain_seconds: float = 60.0
    aging_seconds: float = 30.0
    wait_seconds: float = 3600.0
    connections: int = 4096
    header_seconds: float = 20.0
    body_seconds: float = 60.0
    body_bytes: int = 32 * 2**20
    bodies_bytes: int = 256 * 2**20
