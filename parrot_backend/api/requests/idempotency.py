"""Requests that a client repeats, not knowing whether the first was answered: done once.

As in the IETF's draft "The Idempotency-Key HTTP Header Field".
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from fastapi import Header, Request
from pydantic import AfterValidator

from parrot_backend.api.state import tenancy_of, tenant_of
from parrot_backend.wire.errors import ConflictError
from parrot_backend.wire.views import SessionView

T = TypeVar("T")

MOST_KEYS = 1000
KEPT_SECONDS = 600.0
IDEMPOTENCY_HEADER = "idempotency-key"

_KIND = "key "  # ids of sessions are of another, and can't be taken for keys


def _of_its_kind(key: str | None) -> str | None:
    return None if key is None else _KIND + key


IdempotencyKey = Annotated[
    str | None,
    Header(
        alias=IDEMPOTENCY_HEADER,
        min_length=1,
        max_length=256,
        description="a request with the key and body of an earlier one gets its answer",
    ),
    AfterValidator(_of_its_kind),
]


@dataclass(frozen=True, slots=True)
class _Answer(Generic[T]):
    """What a key's first request gets; `fingerprint` tells it from others."""

    fingerprint: bytes
    at: float
    work: asyncio.Task[T]


class Answers(Generic[T]):
    """The answers to requests with keys, per tenant; the last `MOST_KEYS` of each for a while.

    Args:
        repeated: what a repeat is told, from what the first was.
    """

    def __init__(self, repeated: Callable[[Request, T], T]) -> None:
        self._repeated = repeated
        self._answers: dict[str, OrderedDict[str, _Answer[T]]] = {}

    async def once(self, http: Request, key: str | None, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` gives, or has given to the first request with this key.

        A repeat while the first is in work waits for it. What failed is no answer: it is tried again.

        Raises:
            ConflictError: the key is that of another request.
            ParrotError: the work failed, or what it gave is no answer to a repeat any more.
        """
        if key is None:
            return await work()
        fingerprint = http.url.path.encode() + http.state.body_digest
        answers = self._answers.setdefault(tenant_of(http).name, OrderedDict())
        _forget(answers)
        answer = answers.get(key)
        is_first = answer is None
        if answer is None:
            task = asyncio.ensure_future(_run(work))
            answer = answers[key] = _Answer(fingerprint, time.monotonic(), task)
        elif answer.fingerprint != fingerprint:
            raise ConflictError(
                f"the idempotency key '{key.removeprefix(_KIND)}' is that of another request",
                param=IDEMPOTENCY_HEADER,
                code="idempotency_mismatch",
            )
        try:
            # The first's client may leave: a repeat, which is to come, gets what was done.
            told = await asyncio.shield(answer.work)
        except Exception:
            if answers.get(key) is answer:
                del answers[key]
            raise
        return told if is_first else self._repeated(http, told)

    async def settled(self, http: Request, key: str) -> None:
        """When the first request with this key is no longer in work, if it ever was."""
        answers = self._answers.get(tenant_of(http).name)
        if answers is not None and key in answers:
            await asyncio.wait((answers[key].work,))


def as_it_stands(http: Request, told: SessionView) -> SessionView:
    """What a repeated opening or program is told: the first's answer while its session is open.

    Of one that was closed meanwhile, how it stands: nobody shall take it for an open one.

    Raises:
        NotFoundError: it is forgotten, and the repeat comes too late; it is not opened again.
    """
    session = tenancy_of(http).inspect(told.id)
    return session.view() if session.closed else told


async def _run(work: Callable[[], Awaitable[T]]) -> T:
    return await work()


def _forget(answers: OrderedDict[str, _Answer[T]]) -> None:
    oldest = time.monotonic() - KEPT_SECONDS
    while answers:
        first = next(iter(answers.values()))
        if len(answers) < MOST_KEYS and first.at > oldest:
            return
        answers.popitem(last=False)
