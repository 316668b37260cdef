"""What the machine can do, and what a job takes of it at least."""

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import torch
from peer import Answer, Spec
from peers.worker import Request

_INSTRUCTION_SETS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_tile")


@dataclass(frozen=True, slots=True)
class Limits:
    """fp32 operations per second in a matrix product, and bytes per second read in a row."""

    flops: float
    bandwidth: float


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama's: weights in its layers and its head, and per layer the widths that attention has."""

    layers: int
    layer_weights: int
    head_weights: int
    query_width: int
    kv_width: int

    @classmethod
    def read(cls, folder: str) -> "Shape":
        """From a Hugging Face folder."""
        config = json.loads((Path(folder) / "config.json").read_text())
        hidden, layers = config["hidden_size"], config["num_hidden_layers"]
        dim = config.get("head_dim") or hidden // config["num_attention_heads"]
        query, kv = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
        layer = 2 * hidden * (query + kv) + 3 * hidden * config["intermediate_size"]
        return cls(layers, layers * layer, hidden * config["vocab_size"], query, kv)


def machine() -> str:
    """Its processor, instruction sets that decide its speed, cores and system."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    known = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    sets = [name for name in _INSTRUCTION_SETS if name in known.get("flags", "").split()]
    processor = known.get("model name") or platform.processor()
    return f"{processor} ({', '.join(sets)}), {os.cpu_count()} cores, {platform.platform()}"


def measure_limits() -> Limits:
    """Measure them, in seconds: the best of ten trials each."""
    side = 1536
    left, right = torch.rand(side, side), torch.rand(side, side)
    read = torch.rand(1 << 28)
    return Limits(
        2 * side**3 / _fastest(lambda: left @ right),
        read.nbytes / _fastest(lambda: read.sum()),
    )


def _fastest(run: Callable[[], object]) -> float:
    times = []
    for _ in range(10):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def operations(requests: list[Request], answer: Answer, shape: Shape) -> float:
    """Floating-point operations of a job; NaN where the peer tells no shared tokens."""
    if answer.shared is None:
        return float("nan")
    prompts, count = sum(len(request.prompt) for request in requests), len(requests)
    generated = sum(map(len, answer.tokens))
    computed = prompts - answer.shared + generated - count
    weights = shape.layer_weights * computed + shape.head_weights * generated
    first = answer.shared / count  # as if each had found as much
    seen = sum(
        _sum_to(len(request.prompt) + len(tokens) - 1) - _sum_to(first)
        for request, tokens in zip(requests, answer.tokens, strict=True)
    )
    return 2 * weights + 4 * shape.query_width * shape.layers * seen


def bytes_read(requests: list[Request], answer: Answer, shape: Shape, spec: Spec) -> float:
    """Bytes that a job's steps must read: the weights once in each, keys and values of every sequence.

    What all prompts begin with counts once. A step gives a token to every sequence that still runs.
    """
    columns = zip(*(request.prompt for request in requests), strict=False)
    common = sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, columns))
    lengths = [len(tokens) for tokens in answer.tokens]
    own = sum(
        (len(request.prompt) - common + length / 2) * max(length - 1, 0)
        for request, length in zip(requests, lengths, strict=True)
    )
    steps = max(lengths)
    values = 2 * shape.layers * shape.kv_width * (own + common * steps)
    layers, head = spec.weight_bytes * shape.layer_weights, spec.head_bytes * shape.head_weights
    return steps * (layers + head) + spec.kv_bytes * values


def _sum_to(last: float) -> float:
    """1 + 2 + ... + `last`."""
    return last * (last + 1) / 2
