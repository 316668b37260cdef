"""Parrot for LangChain: the chat model, the LLM, and `compile()` for chains that are made of it."""

try:
    import langchain_core  # noqa: F401
except ImportError as error:
    raise ImportError(
        "parrot_integrations.langchain needs langchain-core. "
        "Run `pip install 'parrot-integrations[langchain]'`."
    ) from error

from parrot_backend.wire.protocol import Objective
from parrot_backend.wire.views import GraphView, SessionEvent, SessionView
from parrot_integrations.client import ParrotClient
from parrot_integrations.client.errors import ParrotError
from parrot_integrations.client.scope import task_group
from parrot_integrations.client.sessions import ParrotSession, parrot_session
from parrot_integrations.langchain.compiling.barrier import Barrier, barrier
from parrot_integrations.langchain.compiling.compiled import CompiledRunnable
from parrot_integrations.langchain.compiling.entry import compile
from parrot_integrations.langchain.compiling.join import JoinTexts, join_texts
from parrot_integrations.langchain.models.chat_models import ChatParrot
from parrot_integrations.langchain.models.errors import (
    ParrotAuthenticationError,
    ParrotConnectionError,
    ParrotContextOverflowError,
    ParrotInvalidRequestError,
    ParrotNotFoundError,
    ParrotOverloadedError,
    ParrotPermissionDeniedError,
    ParrotQuotaError,
    ParrotServerError,
    ParrotTimeoutError,
)
from parrot_integrations.langchain.models.llms import ParrotLLM
from parrot_integrations.planning import transforms
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.session import PlannedSession
from parrot_integrations.planning.transforms import semantic_transform

__all__ = [
    "Barrier",
    "ChatParrot",
    "CompiledRunnable",
    "GraphView",
    "JoinTexts",
    "Objective",
    "ParrotAuthenticationError",
    "ParrotClient",
    "ParrotConnectionError",
    "ParrotContextOverflowError",
    "ParrotError",
    "ParrotInvalidRequestError",
    "ParrotLLM",
    "ParrotNotFoundError",
    "ParrotOverloadedError",
    "ParrotPermissionDeniedError",
    "ParrotQuotaError",
    "ParrotServerError",
    "ParrotSession",
    "ParrotTimeoutError",
    "Plan",
    "PlannedSession",
    "SessionEvent",
    "SessionView",
    "barrier",
    "compile",
    "join_texts",
    "parrot_session",
    "semantic_transform",
    "task_group",
    "transforms",
]
