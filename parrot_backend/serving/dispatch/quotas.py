"""`Quotas`: how much may be unfinished, for all and for each tenant, and how many tokens a minute."""

import math
import time
from collections import Counter
from collections.abc import Callable

from parrot_backend.serving.tenants import Tenant
from parrot_backend.wire.errors import OverloadedError, QuotaError


class _Bucket:
    """Fills by `per_minute`, up to a minute's worth; what was used is taken later, also below zero."""

    def __init__(self, per_minute: int, now: float) -> None:
        self._per_minute = per_minute
        self._level = float(per_minute)
        self._filled = now

    def take(self, tokens: int, now: float) -> None:
        self._fill(now)
        self._level -= tokens

    def seconds_until_one(self, now: float) -> int:
        self._fill(now)
        return max(0, math.ceil((1 - self._level) * 60 / self._per_minute))

    def _fill(self, now: float) -> None:
        gained = (now - self._filled) * self._per_minute / 60
        self._level = min(self._per_minute, self._level + gained)
        self._filled = now


class Quotas:
    """Counts what is unfinished and what was used.

    Args:
        most: calls of all tenants that may be unfinished.
        clock: tells the seconds.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._unfinished: Counter[str] = Counter()
        self._buckets: dict[str, _Bucket] = {}  # of tenants with such a quota: as many as have keys

    def admit(self, tenant: Tenant, calls: int) -> None:
        """So many more are unfinished, all or none.

        Raises:
            OverloadedError: the server is full.
            QuotaError: the tenant has as many as it may have, or used its tokens up.
        """
        total, own = self._unfinished.total(), self._unfinished[tenant.name]
        if total + calls > self._most:
            raise OverloadedError(
                f"{total} calls are unfinished, and with {calls} more it were over the {self._most} "
                "that this server takes: try again later"
            )
        if tenant.calls is not None and own + calls > tenant.calls:
            raise QuotaError(
                f"{own} calls of this API key are unfinished, and with {calls} more it were over its "
                f"quota of {tenant.calls}: try again when some have ended"
            )
        bucket = self._bucket(tenant)
        seconds = bucket.seconds_until_one(self._clock()) if bucket is not None else 0
        if seconds:
            raise QuotaError(
                f"this API key has used its {tenant.tokens_per_minute} tokens per minute: try again "
                f"in {seconds} seconds",
                code="rate_limit_exceeded",
                retry_after=seconds,
            )
        self._unfinished[tenant.name] += calls

    def release(self, tenant: Tenant, tokens: int) -> None:
        """A call has ended; its prompt and its answer had so many tokens."""
        self._unfinished[tenant.name] -= 1
        if not self._unfinished[tenant.name]:
            del self._unfinished[tenant.name]
        if (bucket := self._bucket(tenant)) is not None:
            bucket.take(tokens, self._clock())

    def _bucket(self, tenant: Tenant) -> _Bucket | None:
        if tenant.tokens_per_minute is None:
            return None
        if tenant.name not in self._buckets:
            self._buckets[tenant.name] = _Bucket(tenant.tokens_per_minute, self._clock())
        return self._buckets[tenant.name]
