"""Which requests are sent again, and when."""

import random
from typing import TypeVar

from parrot_integrations.client.errors import BackendConnectionError, BackendStartError, ParrotError
from parrot_integrations.client.operations import Operation

T = TypeVar("T")

_FIRST_DELAY, _LONGEST_DELAY, _LONGEST_RETRY_AFTER = 0.5, 8.0, 60.0
_RETRYABLE_STATUS = {408, 429, 502, 503}
_NO_ROOM = {"session_not_found", "session_full"}


def recovery(
    operation: Operation[T], error: ParrotError, attempt: int, max_retries: int
) -> tuple[Operation[T], float]:
    """What to send after a failed attempt, the first being 0, and after how many seconds.

    Raises:
        ParrotError: the same, where nothing more is sent.
    """
    if operation.in_session and error.code in _NO_ROOM:
        # A plan is only a hint: without its session the request is an ordinary one.
        return operation.without_session(), 0.0
    if attempt >= max_retries or not _is_retryable(error):
        raise error
    if error.retry_after is not None:
        return operation, min(error.retry_after, _LONGEST_RETRY_AFTER)
    return operation, min(_FIRST_DELAY * 2**attempt, _LONGEST_DELAY) * random.uniform(0.75, 1)


def _is_retryable(error: ParrotError) -> bool:
    lost = isinstance(error, BackendConnectionError) and not isinstance(error, BackendStartError)
    return lost or error.status in _RETRYABLE_STATUS
