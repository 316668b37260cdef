"""Which implementation of attention a step is computed with."""

import functools
import importlib.util
from collections.abc import Sequence

from parrot_backend.engines.torch_engine.attention import PlainAttention, Span, StepAttention
from parrot_backend.engines.torch_engine.kv_cache import KVCache


def step_attention(cache: KVCache, spans: Sequence[Span]) -> StepAttention:
    """Triton's kernels on CUDA, where torch brings Triton, and our own on the CPU.

    Args:
        cache: the keys and values of all slots.
        spans: the step's rows, in order.
    """
    if cache.device.type == "cuda" and _has_triton():
        from parrot_backend.engines.torch_engine.triton_attention import TritonAttention

        return TritonAttention(cache, spans)
    if cache.device.type == "cpu":
        from parrot_backend.engines.torch_engine.cpu.step import CpuAttention, fits

        if fits(cache):
            return CpuAttention(cache, spans)
    return PlainAttention(cache, spans)


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
