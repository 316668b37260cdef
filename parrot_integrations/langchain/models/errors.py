"""LangChain's model errors, each also an error of ours, so that code that catches either works."""

from collections.abc import Iterator
from contextlib import contextmanager

from langchain_core import exceptions as langchain

from parrot_integrations.client import errors as parrot


class ParrotConnectionError(parrot.BackendConnectionError, langchain.ModelConnectionError):
    """The backend cannot be reached, or the connection was lost."""


class ParrotTimeoutError(parrot.BackendTimeoutError, langchain.ModelTimeoutError):
    """The backend did not answer in time."""


class ParrotAuthenticationError(parrot.AuthenticationError, langchain.ModelAuthenticationError):
    """No API key, or a wrong one."""


class ParrotPermissionDeniedError(
    parrot.PermissionDeniedError, langchain.ModelPermissionDeniedError
):
    """The API key is known and may not do this."""


class ParrotInvalidRequestError(parrot.InvalidRequestError, langchain.ModelInvalidRequestError):
    """The backend refuses the request as it is."""


class ParrotContextOverflowError(parrot.ContextLengthError, langchain.ContextOverflowError):
    """The messages do not fit the model's context."""


class ParrotNotFoundError(parrot.NotFoundError, langchain.ModelNotFoundError):
    """The backend does not serve that model."""


class ParrotQuotaError(parrot.QuotaError, langchain.ModelRateLimitError):
    """Who asks has as much as its quota allows."""


class ParrotOverloadedError(parrot.OverloadedError, langchain.ModelAPIError):
    """The backend is full."""


class ParrotServerError(parrot.ServerError, langchain.ModelAPIError):
    """The backend failed."""


_MODEL_ERRORS: tuple[type[parrot.ParrotError], ...] = (
    ParrotConnectionError,
    ParrotTimeoutError,
    ParrotAuthenticationError,
    ParrotPermissionDeniedError,
    ParrotContextOverflowError,
    ParrotNotFoundError,
    ParrotInvalidRequestError,
    ParrotQuotaError,
    ParrotOverloadedError,
    ParrotServerError,
)


@contextmanager
def model_errors() -> Iterator[None]:
    """Raises our errors as LangChain's, the original as cause."""
    try:
        yield
    except parrot.ParrotError as error:
        raise _as_model_error(error) from error


def _as_model_error(error: parrot.ParrotError) -> parrot.ParrotError:
    matching = (each for each in _MODEL_ERRORS if isinstance(error, each.__mro__[1]))
    model_error = next(matching, ParrotServerError)
    return model_error(
        error.message,
        status=error.status,
        type=error.type,
        param=error.param,
        code=error.code,
        retry_after=error.retry_after,
    )
