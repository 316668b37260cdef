"""Parrot for LlamaIndex: the LLM, its errors, and `compile`."""

try:
    import llama_index.core  # noqa: F401
except ImportError as error:
    raise ImportError(
        "parrot_integrations.llama_index needs llama-index-core. "
        "Run `pip install 'parrot-integrations[llama-index]'`."
    ) from error

from parrot_integrations.client.errors import AuthenticationError as ParrotAuthenticationError
from parrot_integrations.client.errors import BackendConnectionError as ParrotConnectionError
from parrot_integrations.client.errors import BackendTimeoutError as ParrotTimeoutError
from parrot_integrations.client.errors import ContextLengthError as ParrotContextOverflowError
from parrot_integrations.client.errors import InvalidRequestError as ParrotInvalidRequestError
from parrot_integrations.client.errors import NotFoundError as ParrotNotFoundError
from parrot_integrations.client.errors import OverloadedError as ParrotOverloadedError
from parrot_integrations.client.errors import ParrotError
from parrot_integrations.client.errors import PermissionDeniedError as ParrotPermissionDeniedError
from parrot_integrations.client.errors import QuotaError as ParrotQuotaError
from parrot_integrations.client.errors import ServerError as ParrotServerError
from parrot_integrations.client.sessions import parrot_session
from parrot_integrations.llama_index.compiling.entry import compile
from parrot_integrations.llama_index.models.llm import Parrot
from parrot_integrations.planning.session import PlannedSession

__all__ = [
    "Parrot",
    "ParrotAuthenticationError",
    "ParrotConnectionError",
    "ParrotContextOverflowError",
    "ParrotError",
    "ParrotInvalidRequestError",
    "ParrotNotFoundError",
    "ParrotOverloadedError",
    "ParrotPermissionDeniedError",
    "ParrotQuotaError",
    "ParrotServerError",
    "ParrotTimeoutError",
    "PlannedSession",
    "compile",
    "parrot_session",
]
