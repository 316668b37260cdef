"""What a step runs is compiled, or loaded, before there is a request that would wait for it."""

import torch

from parrot_backend.engines.torch_engine.forward.cpu.compiling import compiling
from parrot_backend.engines.torch_engine.forward.forward_pass import Chunk, ForwardPass, StepModel
from parrot_backend.engines.torch_engine.memory.kv_cache import KVCache, LayerShape
from parrot_backend.engines.torch_engine.memory.slots import Run


def warm_up(forward: ForwardPass, shapes: list[LayerShape]) -> None:
    """Compute one token, in a cache of its own: the pages of the real one are for who needs them.

    Raises:
        StoreError: another process has been compiling the kernels for an hour.
    """
    cache = KVCache(shapes, 1, forward.kv_dtype, torch.device("cpu"))
    with compiling(f"{type(forward).__name__} in {forward.kv_dtype}"):
        StepModel(forward, cache).forward([Chunk([0], 0, [Run(0, 1)], 1)])
