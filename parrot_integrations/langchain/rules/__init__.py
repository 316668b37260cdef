"""One small rule per runnable type; importing this package registers them all."""

from parrot_integrations.langchain.rules import compose, models, prompts, texts

__all__ = ["compose", "models", "prompts", "texts"]
