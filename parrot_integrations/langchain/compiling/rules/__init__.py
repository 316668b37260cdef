"""One small rule per runnable type; importing this package registers them all."""

from parrot_integrations.langchain.compiling.rules import (
    choose,
    classic,
    compose,
    functions,
    graphs,
    models,
    prompts,
    structured,
    texts,
)

__all__ = [
    "choose",
    "classic",
    "compose",
    "functions",
    "graphs",
    "models",
    "prompts",
    "structured",
    "texts",
]
