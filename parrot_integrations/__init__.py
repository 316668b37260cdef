"""Parrot for LangChain and LlamaIndex."""

from parrot_backend import __version__

__all__ = ["__version__"]
