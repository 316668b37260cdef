"""Errors that a caller of the backend sees.

ParrotError
  BackendConnectionError     no connection, or lost before the answer was complete
    BackendStartError        the managed backend did not start
    BackendLostError         the managed backend ended while it answered
  BackendTimeoutError   504  no byte within the read timeout, or a wait on the server ran out;
                        408  the request itself did not come in time
  AuthenticationError   401  no API key, or a wrong one
  PermissionDeniedError 403  the key may not do this,
                        421  or the backend has another name than the one it was asked under
  InvalidRequestError   4xx  the request can never succeed as it is
    ContextLengthError  400  the prompt does not fit the model's context
    NotFoundError       404  no such model, session, variable or call
  QuotaError            429  who asks has as much as its quota allows: try again later
  OverloadedError       503  the backend is full: try again later
  ServerError           5xx  the backend or its engine failed, or it ends
"""

from collections.abc import Mapping
from typing import Any


class ParrotError(Exception):
    """Base of all errors of the integrations.

    Args:
        message: what happened and what to do about it.
        status: HTTP status of the answer; None where there was none.
        type: OpenAI's class of error (`invalid_request_error`).
        param: the field that is at fault, as a path (`messages.2.content`).
        code: machine-readable reason (`context_length_exceeded`).
        retry_after: seconds after which the server asked to try again.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        type: str | None = None,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.type = type
        self.param = param
        self.code = code
        self.retry_after = retry_after


class BackendConnectionError(ParrotError):
    """No connection to the backend, or it was lost before the answer was complete."""


class BackendStartError(BackendConnectionError):
    """The managed backend did not start; the message ends with the tail of its log."""


class BackendLostError(BackendConnectionError):
    """The managed backend ended while it answered; the message ends with the tail of its log."""


class BackendTimeoutError(ParrotError):
    """No byte came within the read timeout, or a wait on the server ran out, or its wait for us."""


class AuthenticationError(ParrotError):
    """No API key, or a wrong one."""


class PermissionDeniedError(ParrotError):
    """The API key is known and may not do this; or this backend does not answer under that name."""


class InvalidRequestError(ParrotError):
    """The request can never succeed as it is."""


class ContextLengthError(InvalidRequestError):
    """The prompt, or the prompt and its answer, do not fit the model's context."""


class NotFoundError(InvalidRequestError):
    """No such model, session, variable or call."""


class QuotaError(ParrotError):
    """Who asks has as much as its quota allows; the same request may succeed later."""


class OverloadedError(ParrotError):
    """The backend is full, whoever asks; the same request may succeed later."""


class ServerError(ParrotError):
    """The backend or its engine failed, or something in between answered in its place."""


_BY_STATUS: dict[int, type[ParrotError]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    408: BackendTimeoutError,
    421: PermissionDeniedError,
    429: QuotaError,
    504: BackendTimeoutError,
}

# One status has several reasons, and an error inside a stream has none.
_BY_CODE: dict[str, type[ParrotError]] = {
    "context_length_exceeded": ContextLengthError,
    "overloaded": OverloadedError,
}

# An error inside a stream has no status of its own: the head said 200 long before.
_BY_TYPE: dict[str, type[ParrotError]] = {
    "authentication_error": AuthenticationError,
    "invalid_request_error": InvalidRequestError,
    "dependency_error": InvalidRequestError,
    "rate_limit_error": QuotaError,
    "timeout_error": BackendTimeoutError,
}


def error_from_detail(
    detail: Mapping[str, Any], *, status: int | None = None, retry_after: float | None = None
) -> ParrotError:
    """The error that OpenAI's error object describes.

    Args:
        detail: the value of `error`: message, type, param, code.
        status: HTTP status of the answer; None inside a stream.
        retry_after: seconds, from the header of that name.
    """
    error_class = _error_class(status, detail.get("type"), detail.get("code"))
    return error_class(
        str(detail.get("message") or "The backend failed without saying why."),
        status=status,
        type=detail.get("type"),
        param=detail.get("param"),
        code=detail.get("code"),
        retry_after=retry_after,
    )


def _error_class(status: int | None, error_type: Any, code: Any) -> type[ParrotError]:
    if known := _BY_CODE.get(str(code)):
        return known
    if status is None:
        return _BY_TYPE.get(str(error_type), ServerError)
    return _BY_STATUS.get(status) or (InvalidRequestError if status < 500 else ServerError)
