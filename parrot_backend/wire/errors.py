"""Errors that reach a client, each with its HTTP status and OpenAI's `type`, `param` and `code`.

ParrotError
  InvalidRequestError      400  the request can never succeed as it is
    ContextLengthError     400  the prompt does not fit the model's context
  AuthenticationError      401
  NotFoundError            404  no such session, variable, call or model
  ConflictError            409  a name is taken
  PayloadTooLargeError     413
  DependencyError          424  a call or variable upstream failed
  QuotaError               429  the tenant has as much as it may have: try again later
  EngineError              500  the engine failed under the request
  OverloadedError          503  the server is full: try again later
  UnavailableError         503  shutting down
    CancelledCallError     503  the call was stopped before its end
    EndpointLostError      503  what ran the call died or hung, and it could not be run again
  DeadlineError            504  a wait ran out
"""

from typing import ClassVar


class ParrotError(Exception):
    """Base of all errors that are answered to a client.

    Args:
        message: what happened and what to do about it, for a human.
        param: the field that is at fault, as a path (`calls.2.messages`).
        code: machine-readable reason; defaults to the class's own.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str | None] = None
    retry_after: int | None = None
    """Seconds after which the same request may succeed, where waiting helps."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.default_code


class InvalidRequestError(ParrotError):
    """The request can never succeed as it is."""

    status = 400
    type = "invalid_request_error"


class ContextLengthError(InvalidRequestError):
    """The prompt, or the prompt and its answer, do not fit the model's context."""

    default_code = "context_length_exceeded"


class AuthenticationError(ParrotError):
    """No API key, or a wrong one."""

    status = 401
    type = "authentication_error"
    default_code = "invalid_api_key"


class NotFoundError(ParrotError):
    """No such session, variable, call or model."""

    status = 404
    type = "invalid_request_error"


class ConflictError(ParrotError):
    """A name is taken, or a variable is already set."""

    status = 409
    type = "invalid_request_error"


class PayloadTooLargeError(ParrotError):
    """The request body is over the server's limit."""

    status = 413
    type = "invalid_request_error"
    default_code = "body_too_large"


class DependencyError(ParrotError):
    """A call or variable that this one needs has failed; the message names the root."""

    status = 424
    type = "dependency_error"
    default_code = "dependency_failed"


class QuotaError(ParrotError):
    """The tenant has as much as it may have; when some of it has ended, there may be more."""

    status = 429
    type = "rate_limit_error"
    default_code = "quota_exceeded"

    def __init__(self, message: str, *, code: str | None = None, retry_after: int = 1) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class OverloadedError(ParrotError):
    """The server is full: a queue or a table is. The same request may succeed later."""

    status = 503
    default_code = "overloaded"
    retry_after = 1


class EngineError(ParrotError):
    """The engine failed under the request."""

    default_code = "engine_failed"


class UnavailableError(ParrotError):
    """The server is shutting down, or not yet ready."""

    status = 503
    type = "server_error"
    default_code = "unavailable"


class CancelledCallError(UnavailableError):
    """The call was stopped before its end: its session was closed, or its reader left."""

    default_code = "cancelled"


class EndpointLostError(UnavailableError):
    """What ran the call died or hung; elsewhere, or later, it may run."""

    default_code = "endpoint_lost"


class DeadlineError(ParrotError):
    """A wait ran out before the value was there."""

    status = 504
    type = "timeout_error"
    default_code = "deadline_exceeded"
