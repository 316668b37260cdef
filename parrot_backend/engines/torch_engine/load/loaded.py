"""A model that is ready to run."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

from parrot_backend.engines.torch_engine.forward.forward_pass import ForwardPass
from parrot_backend.engines.torch_engine.load.quality import Quantization
from parrot_backend.engines.torch_engine.memory.kv_cache import LayerShape
from parrot_backend.engines.torch_engine.tokenizer import Tokenizer


def trim() -> None:
    """Give the system what this process has freed; its allocator keeps it otherwise."""
    trimmed = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trimmed is not None:
        trimmed(0)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A forward pass, and what belongs to it.

    `context_length` is in tokens; `end_tokens` end a generation; `shapes` are what its layers store.
    `rest` gives back what is only needed to compute; the next step finds it again.
    """

    forward: ForwardPass
    tokenizer: Tokenizer
    context_length: int
    end_tokens: frozenset[int]
    shapes: list[LayerShape]
    quantization: Quantization | None = None
    rest: Callable[[], None] = trim
