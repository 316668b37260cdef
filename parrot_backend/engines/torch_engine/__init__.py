"""Parrot's own engine: continuous batching over one KV memory that all sequences share by prefix."""

from parrot_backend.engines.torch_engine.engine import TorchEngine

__all__ = ["TorchEngine"]
