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
from typing import Any, cast

import numpy as np
import torch
from machine import machine, measure_limits

from parrot_backend.engines.cores import usable_cores
from parrot_backend.engines.store.catalog import resolve_model
from parrot_backend.engines.torch_engine.forward.attention import Span
from parrot_backend.engines.torch_engine.forward.cpu.attention import attend
from parrot_backend.engines.torch_engine.forward.cpu.batch_attention import CpuAttention
from parrot_backend.engines.torch_engine.forward.cpu.compiling import compiled
from parrot_backend.engines.torch_engine.forward.cpu.layer import layer_of
from parrot_backend.engines.torch_engine.forward.cpu.llama import CpuLlama
from parrot_backend.engines.torch_engine.forward.cpu.products import ADD, GATE, STORE, product
from parrot_backend.engines.torch_engine.forward.cpu.team import together
from parrot_backend.engines.torch_engine.forward.forward_pass import Step
from parrot_backend.engines.torch_engine.load.loader import load_model
from parrot_backend.engines.torch_engine.memory.kv_cache import KVCache
from parrot_backend.engines.torch_engine.memory.slots import Run


class DecodeStep:
    """One token for each of `batch` sequences with `context` tokens of their own."""

    def __init__(self, forward: CpuLlama, cache: KVCache, batch: int, context: int) -> None:
        self._forward, self._cache = forward, cache
        spans = [Span(context - 1, 1, [Run(i * context, context)]) for i in range(batch)]
        self._step = Step([1] * batch, [context - 1] * batch, spans, list(range(batch)))
        shape = forward.shape
        self._plan = CpuAttention(cache, spans).plan(shape.kv_heads, shape.group, shape.dim)
        self._buffers = forward.buffers(batch, batch)
        # Numbers as they come: what lies in fresh memory may be far slower to compute with.
        for numbers in (self._buffers.rows, self._buffers.qkv):
            numbers[:] = np.resize(np.arange(-50, 50), numbers.shape)
        self._hidden = np.zeros((batch, forward.width), np.float32)
        self._logits = np.empty((batch, len(forward.head.scales)), np.float32)

    def whole(self) -> None:
        """The forward pass."""
        self._forward(self._step, self._cache)

    def products(self) -> None:
        """All products of rows and weights."""
        forward, layers = self._forward, len(self._cache.keys)
        arguments = (forward.layers, forward.head, self._buffers, self._hidden, self._logits)
        together(_products, 4 * layers + 1, *arguments)

    def attention(self) -> None:
        """Of all layers."""
        arguments = (self._forward.shape, self._cache.arrays, self._plan, self._buffers)
        together(_attentions, len(self._cache.keys), *arguments)


@compiled()
def _products(layers: Any, head: Any, buffers: Any, hidden: Any, logits: Any, work: Any) -> None:
    for index in range(len(layers.before)):
        layer, phase = layer_of(layers, index), 4 * index
        _multiply(buffers, layer.qkv, buffers.qkv, STORE, work, phase)
        _multiply(buffers, layer.out, hidden, ADD, work, phase + 1)
        _multiply(buffers, layer.gate_up, buffers.gated, GATE, work, phase + 2)
        _multiply(buffers, layer.down, hidden, ADD, work, phase + 3)
    _multiply(buffers, head, logits, STORE, work, 4 * len(layers.before))


@compiled()
def _multiply(buffers: Any, packed: Any, out: Any, finish: Any, work: Any, phase: Any) -> None:
    depth = packed.panels.shape[1] * (2 if packed.panels.ndim == 4 else 1)
    product(buffers.rows, depth, buffers.scales, packed, out, finish, work, phase)


@compiled()
def _attentions(shape: Any, kv: Any, plan: Any, buffers: Any, work: Any) -> None:
    keys, values = kv
    group, scaling = shape.heads // shape.kv_heads, np.float32(shape.scaling)
    scratch = np.empty(plan.scratch, np.float32)
    for index in range(len(keys)):
        of_layer, out = (keys[index], values[index]), buffers.attended
        attend(buffers.qkv, group, of_layer, scaling, plan, scratch, out, work, index)


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
    print(f"{machine()}, torch {torch.__version__}, {usable_cores()} threads")
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
