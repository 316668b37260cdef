"""What is done with a step's rows between the products: norms, whole numbers, rotary embedding."""

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from parrot_backend.engines.torch_engine.forward.cpu.compiling import compiled
from parrot_backend.engines.torch_engine.forward.cpu.phases import pieces
from parrot_backend.engines.torch_engine.forward.cpu.vectors import half_bits

# Rows that a thread claims at a time at most.
_CLAIM = 16


def normalized(
    x: Any, weight: Any, eps: Any, packed: Any, rows: Any, scales: Any, work: Any, phase: Any
) -> Any:
    """RMS norm of each row of `x` `[T, width]`, as the product `packed` takes it; a phase of `work`.

    Returns:
        `rows`, which are written, and how many numbers each has. Where they are whole numbers, `scales`
        `[T]` are written as well.
    """
    raise NotImplementedError("only compiled code can call this")


def operand(x: Any, packed: Any, rows: Any, scales: Any, work: Any, phase: Any) -> Any:
    """As `normalized`, without a norm; what is to be multiplied in float32 is `x` as it is."""
    raise NotImplementedError("only compiled code can call this")


@overload(normalized, strict=False)
def _normalized(
    x: Any, weight: Any, eps: Any, packed: Any, rows: Any, scales: Any, work: Any, phase: Any
) -> Any:
    write = _norm_whole if rows.dtype == types.int16 else _norm
    return lambda x, weight, eps, packed, rows, scales, work, phase: write(
        x, weight, eps, packed, rows, scales, work, phase
    )


@overload(operand, strict=False)
def _operand(x: Any, packed: Any, rows: Any, scales: Any, work: Any, phase: Any) -> Any:
    if rows.dtype == types.int16:
        return lambda x, packed, rows, scales, work, phase: _whole(
            x, packed, rows, scales, work, phase
        )
    return lambda x, packed, rows, scales, work, phase: (x, x.shape[1])


@compiled()
def gather(x: Any, which: Any, into: Any, work: Any, phase: Any) -> None:
    """Copy rows of `x`, those of numbers `which` `[R]`, `into` `[R, width]`; a phase of `work`."""
    count = which.size
    for first, stop in pieces(work, phase, count, count, _CLAIM):
        for row in range(first, stop):
            into[row] = x[which[row]]


@compiled()
def _norm(
    x: Any, weight: Any, eps: Any, packed: Any, rows: Any, scales: Any, work: Any, phase: Any
) -> Any:
    count, depth = x.shape
    for first, stop in pieces(work, phase, count, count, _CLAIM):
        for row in range(first, stop):
            factor = _norm_factor(x[row], eps)
            for i in range(depth):
                rows[row * depth + i] = x[row, i] * factor * weight[i]
    return rows, depth


@compiled()
def _norm_whole(
    x: Any, weight: Any, eps: Any, packed: Any, rows: Any, scales: Any, work: Any, phase: Any
) -> Any:
    count, depth, levels = x.shape[0], 2 * packed.panels.shape[1], packed.levels
    for first, stop in pieces(work, phase, count, count, _CLAIM):
        for row in range(first, stop):
            scale = _round_row(x[row], weight, levels, rows[row * depth : (row + 1) * depth])
            scales[row] = scale * _norm_factor(x[row], eps)
    return rows, depth


@compiled()
def _whole(x: Any, packed: Any, rows: Any, scales: Any, work: Any, phase: Any) -> Any:
    count, depth, levels = x.shape[0], 2 * packed.panels.shape[1], packed.levels
    ones = np.ones(x.shape[1], np.float32)
    for first, stop in pieces(work, phase, count, count, _CLAIM):
        for row in range(first, stop):
            into = rows[row * depth : (row + 1) * depth]
            scales[row] = _round_row(x[row], ones, levels, into)
    return rows, depth


@compiled(fast=True)
def _norm_factor(row: Any, eps: Any) -> Any:
    squares = np.float32(0)
    for i in range(row.size):
        squares += row[i] * row[i]
    return np.float32(1) / np.sqrt(squares / np.float32(row.size) + np.float32(eps))


@compiled()
def _round_row(row: Any, weight: Any, levels: Any, into: Any) -> Any:
    """Write `row * weight` in whole numbers of at most `levels`; returns their scale.

    A row may be padded with zeros, to more numbers than are wanted.
    """
    # Positive numbers are in the order of their bits, which vectors compare sooner; NaN is the largest.
    bits, count = np.int32(1), min(row.size, into.size)
    for i in range(count):
        bits = max(bits, np.float32(abs(row[i] * weight[i])).view(np.int32))
    largest = np.int32(bits).view(np.float32)
    inverse = np.float32(levels) / largest
    for i in range(count):
        into[i] = np.int16(np.rint(row[i] * weight[i] * inverse))
    into[count:] = 0
    return largest / np.float32(levels)


@compiled()
def rotate(
    qkv: Any, shape: Any, layer: Any, turns: Any, slots: Any, kv: Any, work: Any, phase: Any
) -> None:
    """Rotary embedding of queries and keys in `qkv` `[T, ..]`; keys and values into their slots.

    Args:
        qkv: each row's queries, keys and values.
        shape: see `Shape`.
        layer: see `Layer`; its norms of queries and keys come before the rotation.
        turns: cosines and sines `[T, dim / 2]` for the halves of each head.
        slots: `[T]`.
        kv: the layer's keys and values `[kv_heads, slots, dim]`.
        work: see `Work`.
        phase: of the work, for this.
    """
    count = qkv.shape[0]
    for first, stop in pieces(work, phase, count, count, _CLAIM):
        _rotate_rows(qkv, shape, layer, turns, slots, kv, first, stop)


@compiled()
def _rotate_rows(
    qkv: Any, shape: Any, layer: Any, turns: Any, slots: Any, kv: Any, first: Any, stop: Any
) -> None:
    dim, heads, kv_heads, eps = shape.dim, shape.heads, shape.kv_heads, shape.eps
    query_norm, key_norm = layer.query_norm, layer.key_norm
    keys, values = kv
    cos, sin = turns
    half = dim // 2
    for row in range(first, stop):
        for head in range(heads + kv_heads):
            part = qkv[row, head * dim : (head + 1) * dim]
            norm = query_norm if head < heads else key_norm
            if norm.size:
                factor = _norm_factor(part, eps)
                for i in range(dim):
                    part[i] = part[i] * factor * norm[i]
            for i in range(half):
                left, right = part[i], part[half + i]
                part[i] = left * cos[row, i] - right * sin[row, i]
                part[half + i] = right * cos[row, i] + left * sin[row, i]
        for head in range(kv_heads):
            key = (heads + head) * dim
            value = key + kv_heads * dim
            _store(qkv[row, key : key + dim], keys, head, slots[row])
            _store(qkv[row, value : value + dim], values, head, slots[row])


def _store(numbers: Any, cache: Any, head: Any, slot: Any) -> None:
    raise NotImplementedError("only compiled code can call this")


@overload(_store, strict=False)
def _store_as(numbers: Any, cache: Any, head: Any, slot: Any) -> Any:
    write = _as_they_are if cache.dtype == types.float32 else _as_halves
    return lambda numbers, cache, head, slot: write(numbers, cache, head, slot)


@compiled()
def _as_they_are(numbers: Any, cache: Any, head: Any, slot: Any) -> None:
    for i in range(numbers.size):
        cache[head, slot, i] = numbers[i]


@compiled()
def _as_halves(numbers: Any, cache: Any, head: Any, slot: Any) -> None:
    for i in range(numbers.size):
        cache[head, slot, i] = half_bits(numbers[i])
