"""LangChain's own tests of a chat model, with vLLM behind Parrot."""

from tests.integrations.langchain.models.test_standard import TestIntegration  # noqa: F401
