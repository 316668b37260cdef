"""Parrot for LangChain: the chat model, and `compile()` for chains that are made of it."""

try:
    import langchain_core  # noqa: F401
except ImportError as error:
    raise ImportError(
        "parrot_integrations.langchain needs langchain-core. "
        "Run `pip install 'parrot-integrations[langchain]'`."
    ) from error

from parrot_integrations.langchain.chat_models import ChatParrot
from parrot_integrations.langchain.compile import CompiledRunnable, compile
from parrot_integrations.langchain.join import JoinTexts, join_texts

__all__ = ["ChatParrot", "CompiledRunnable", "JoinTexts", "compile", "join_texts"]
