"""Parrot for LlamaIndex: the LLM, and `compile`."""

try:
    import llama_index.core  # noqa: F401
except ImportError as error:
    raise ImportError(
        "parrot_integrations.llama_index needs llama-index-core. "
        "Run `pip install 'parrot-integrations[llama-index]'`."
    ) from error

from parrot_integrations.client.sessions import parrot_session
from parrot_integrations.llama_index.compiling.entry import compile
from parrot_integrations.llama_index.models.llm import Parrot
from parrot_integrations.planning.session import PlannedSession

__all__ = ["Parrot", "PlannedSession", "compile", "parrot_session"]
