"""Where the time of a decode step goes, in our own engine on the CPU.

    python benchmarks/decode_step.py [--int8] [--batch 16] [--context 128] [--trials 30]

The step's forward pass is timed, and between any two of these the matrix products of its weights alone,
and its attention alone, on the same numbers. What is left is norms, rotations, what is rounded, and
starting all of it. Medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from machine import machine, measure_limits

from parrot_backend.engines.store.catalog import resolve_model
from parrot_backend.engines.torch_engine.forward.attention import Span
from parrot_backend.engines.torch_engine.forward.cpu.attention import attend
from parrot_backend.engines.torch_engine.forward.cpu.batch_attention import CpuAttention
from parrot_backend.engines.torch_engine.forward.cpu.compiling import threads
from parrot_backend.engines.torch_engine.forward.cpu.layer import layer_of
from parrot_backend.engines.torch_engine.forward.cpu.llama import CpuLlama
from parrot_backend.engines.torch_engine.forward.cpu.products import ADD, GATE, STORE, product
from parrot_backend.engines.torch_engine.forward.forward_pass import Step
from parrot_backend.engines.torch_engine.load.loader import load_model
from parrot_backend.engines.torch_engine.memory.kv_cache import KVCache
from parrot_backend.engines.torch_engine.memory.slots import Run


class DecodeStep:
    """One token for each of `batch` sequences with `context` tokens of their own."""

    def __init__(self, forward: CpuLlama, cache: KVCache, batch: int, context: int) -> None:
        self._forward, self._cache = forward, cache
        self._layers = [layer_of(forward.layers, index) for index in range(len(cache.keys))]
        spans = [Span(context - 1, 1, [Run(i * context, context)]) for i in range(batch)]
        self._step = Step([1] * batch, [context - 1] * batch, spans, list(range(batch)))
        shape = forward.shape
        self._plan = CpuAttention(cache, spans).plan(shape.kv_heads, shape.group, shape.dim)
        self._buffers = forward.buffers(batch)
        self._hidden = np.zeros((batch, forward.width), np.float32)
        self._logits = np.empty((batch, len(forward.head.scales)), np.float32)

    def whole(self) -> None:
        """The forward pass."""
        self._forward(self._step, self._cache)

    def products(self) -> None:
        """All products of rows and weights."""
        b, steps, count = self._buffers, self._buffers.steps, threads()
        for layer in self._layers:
            for packed, out, finish in (
                (layer.qkv, b.qkv, STORE),
                (layer.out, self._hidden, ADD),
                (layer.gate_up, b.gated, GATE),
                (layer.down, self._hidden, ADD),
            ):
                product(b.rows, self._depth(packed.panels), steps, packed, out, finish, count)
        head = self._forward.head
        product(b.rows, self._depth(head.panels), steps, head, self._logits, STORE, count)

    def attention(self) -> None:
        """Of all layers."""
        shape = self._forward.shape
        for kv in zip(*self._cache.arrays, strict=True):
            scaling = np.float32(shape.scaling)
            attend(self._buffers.qkv, shape.group, kv, scaling, self._plan, self._buffers.attended)

    def _depth(self, panels: np.ndarray) -> int:
        return panels.shape[1] * (2 if panels.ndim == 4 else 1)


def medians(runs: list[Callable[[], None]], trials: int) -> list[float]:
    """Seconds of each, taken in turns."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(trials + 1):
        for run, seconds in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds[1:]) for seconds in times]


def main() -> None:
    """Print the step's milliseconds and their shares."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--int8", action="store_true")
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--context", type=int, default=128)
    options.add_argument("--trials", type=int, default=30)
    args = options.parse_args()
    limits = measure_limits()
    print(f"{machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{limits.flops / 1e9:.0f} GFLOP/s in fp32, {limits.bandwidth / 1e9:.1f} GB/s read")
    loaded = load_model(resolve_model(None).path, "int8" if args.int8 else None)
    forward = cast(CpuLlama, loaded.forward)
    slots = args.batch * args.context
    cache = KVCache(loaded.shapes, slots, forward.kv_dtype, torch.device("cpu"))
    for stored in (*cache.keys, *cache.values):
        stored.normal_()
    step = DecodeStep(forward, cache, args.batch, args.context)
    whole, products, attention = medians([step.whole, step.products, step.attention], args.trials)
    parts = {"products": products, "attention": attention, "rest": whole - products - attention}
    shares = ", ".join(f"{name} {s * 1e3:.1f} ms ({s / whole:.0%})" for name, s in parts.items())
    kind = "int8" if args.int8 else "fp32"
    print(f"{kind}, batch {args.batch}, context {args.context}: {whole * 1e3:.1f} ms: {shares}")


if __name__ == "__main__":
    main()
