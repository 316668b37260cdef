"""What came back over HTTP: read as the operation wants it, or raised as one of our errors."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal, TypeVar

import httpx

from parrot_integrations.client import managed
from parrot_integrations.client.errors import (
    BackendConnectionError,
    BackendLostError,
    BackendTimeoutError,
    ParrotError,
    ServerError,
    error_from_detail,
)
from parrot_integrations.client.operations import Operation

T = TypeVar("T")


def checked(response: httpx.Response) -> httpx.Response:
    """The response, whose body has been read if it is an error.

    Raises:
        ParrotError: it is an error.
    """
    if response.is_error:
        raise error_from_detail(
            _detail(response), status=response.status_code, retry_after=_retry_after(response)
        )
    return response


def read(operation: Operation[T], response: httpx.Response) -> T:
    """The operation's result.

    Raises:
        ServerError: the answer is not one to this operation.
    """
    try:
        return operation.read(response.json() if response.content else None)
    except (ValueError, KeyError, TypeError) as error:
        raise ServerError(
            f"The answer of {response.url} is not what a Parrot backend answers; is it one? "
            f"It begins with: {response.text[:200]!r}",
            status=response.status_code,
        ) from error


@contextmanager
def translated(root: str) -> Iterator[None]:
    """Raises httpx's exceptions as ours, with what to do about them, or what became of the backend."""
    try:
        yield
    except httpx.RequestError as error:
        raise _translation(root, error, _is_loss(error) and managed.loss(root)) from error


@asynccontextmanager
async def atranslated(root: str) -> AsyncIterator[None]:
    """As `translated`, without blocking the event loop."""
    try:
        yield
    except httpx.RequestError as error:
        raise _translation(root, error, _is_loss(error) and await managed.aloss(root)) from error


def _is_loss(error: httpx.RequestError) -> bool:
    """Whether the backend may be gone."""
    return isinstance(error, httpx.ConnectTimeout) or not isinstance(error, httpx.TimeoutException)


def _translation(
    root: str, error: httpx.RequestError, lost: str | Literal[False] | None
) -> ParrotError:
    if lost:
        return BackendLostError(lost)
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return BackendConnectionError(
            f"Cannot reach a Parrot backend at {root}: {error or 'no answer'}. Start one with "
            "`parrot serve`, or name another with base_url= or PARROT_BASE_URL; with neither, one "
            "is started for you."
        )
    if isinstance(error, httpx.TimeoutException):
        return BackendTimeoutError(
            f"{root} sent nothing within the timeout; raise it with timeout= (seconds)."
        )
    return BackendConnectionError(f"Lost the connection to {root}: {error}")


def _detail(response: httpx.Response) -> Mapping[str, Any]:
    """OpenAI's error object, or one in its place where something else answered."""
    try:
        detail = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        detail = None
    if isinstance(detail, dict):
        return detail
    return {"message": f"{response.url} answered {response.status_code}: {response.text[:200]}"}


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return max(0.0, float(response.headers["retry-after"]))
    except (KeyError, ValueError):
        return None
