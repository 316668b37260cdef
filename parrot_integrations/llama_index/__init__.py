"""Parrot for LlamaIndex: the LLM."""

try:
    import llama_index.core  # noqa: F401
except ImportError as error:
    raise ImportError(
        "parrot_integrations.llama_index needs llama-index-core. "
        "Run `pip install 'parrot-integrations[llama-index]'`."
    ) from error

from parrot_integrations.llama_index.models.llm import Parrot

__all__ = ["Parrot"]
