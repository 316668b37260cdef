"""What came back over HTTP: read as the operation wants it, or raised as one of our errors."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx

from parrot_integrations.client import managed
from parrot_integrations.client.errors import (
    BackendConnectionError,
    BackendLostError,
    BackendTimeoutError,
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
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        _raise_if_managed(root, error)
        raise BackendConnectionError(
            f"Cannot reach a Parrot backend at {root}: {error or 'no answer'}. Start one with "
            "`parrot serve`, or name another with base_url= or PARROT_BASE_URL; with neither, one "
            "is started for you."
        ) from error
    except httpx.TimeoutException as error:
        raise BackendTimeoutError(
            f"{root} sent nothing within the timeout; raise it with timeout= (seconds)."
        ) from error
    except httpx.RequestError as error:
        _raise_if_managed(root, error)
        raise BackendConnectionError(f"Lost the connection to {root}: {error}") from error


def _raise_if_managed(root: str, error: httpx.RequestError) -> None:
    if (told := managed.loss(root)) is not None:
        raise BackendLostError(told) from error


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
