"""Errors that only this engine has."""

from parrot_backend.wire.errors import ContextLengthError, EngineError


class ModelLoadError(EngineError):
    """The model can't be loaded; the message is one line and says what to do."""

    default_code = "model_load_failed"


class KVMemoryError(ContextLengthError):
    """The sequence alone is longer than the engine's KV memory."""

    default_code = "kv_memory_exceeded"
