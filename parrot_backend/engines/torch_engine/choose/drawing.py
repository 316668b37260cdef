"""Drawing tokens, compiled: one row of logits at a time, by the numbers that its sequence has drawn.

A row is read in blocks. Of each, the sum and the largest of its weights are known after one pass; what
top-k and top-p keep is mostly in a few of them, and the others are looked at no more.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from parrot_backend.engines.torch_engine.forward.cpu.compiling import compiled, compiling
from parrot_backend.engines.torch_engine.forward.cpu.phases import pieces
from parrot_backend.engines.torch_engine.forward.cpu.team import together

_BLOCK = 512
# Weights below are zero in float32, relative to the largest, which is 1.
_LOWEST = np.float32(-87.0)
# The largest weights are looked for among those above a limit, which is lowered until they are enough.
_LIMIT, _LOWERED = np.float32(1 / 64), np.float32(1 / 64)

_LOG2_E = np.float32(1.4426950408889634)
_LN_2_HIGH, _LN_2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
# Adding and subtracting it rounds a float32; the sum's lowest bits are the whole number.
_ROUNDING = np.float32(12582912.0)
# The exponential between -ln(2) / 2 and ln(2) / 2, from its highest term (Cephes' expf).
_TERMS = tuple(
    np.float32(term)
    for term in (
        1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1,
        5.0000001201e-1, 1.0, 1.0,
    )
)  # fmt: skip


class Draw(NamedTuple):
    """How a token is drawn of a row: `top_k` is 0 and `top_p` 1 where they keep all; `number` is from
    0 to 1."""

    row: int
    temperature: float
    min_p: float
    top_k: int
    top_p: float
    number: float


class Draws(NamedTuple):
    """Several of `Draw`, by field."""

    rows: np.ndarray
    inverse_temperatures: np.ndarray
    min_ps: np.ndarray
    top_ks: np.ndarray
    top_ps: np.ndarray
    numbers: np.ndarray


def draw(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    """A token for each of the draws, in vLLM's order: temperature, min-p, top-k, top-p.

    It is drawn in vocabulary order, so that tiny differences between the logits of a token alone and in
    a batch, which can change the order by rank, don't change the draw.

    Args:
        logits: `[rows, vocabulary]`, float32; the rows that are drawn from have a finite maximum.
        draws: of these rows.
    """
    rows, temperatures, min_ps, top_ks, top_ps, numbers = zip(*draws, strict=True)
    tokens = np.empty(len(draws), np.int64)
    together(
        _draw_rows,
        1,
        # A row may be longer than its vocabulary.
        logits.as_strided(((len(logits) - 1) * logits.stride(0) + logits.shape[1],), (1,)).numpy(),
        logits.stride(0),
        logits.shape[1],
        Draws(
            np.array(rows, np.int64),
            np.array([1 / temperature for temperature in temperatures], np.float32),
            np.array(min_ps, np.float32),
            np.array(top_ks, np.int64),
            np.array(top_ps, np.float64),
            np.array(numbers, np.float64),
        ),
        tokens,
    )
    drawn: list[int] = tokens.tolist()
    return drawn


def warm_up() -> None:
    """Compile what draws, or load it."""
    with compiling("drawing"):
        draw(torch.zeros(1, 1), [Draw(0, 1.0, 0.0, 0, 1.0, 0.0)])


@compiled()
def _draw_rows(logits: Any, stride: Any, size: Any, draws: Any, tokens: Any, work: Any) -> None:
    count = tokens.size
    weights, ranked = np.empty(size, np.float32), np.empty(size, np.float32)
    blocks = (size + _BLOCK - 1) // _BLOCK
    sums, largest = np.empty(blocks, np.float64), np.empty(blocks, np.float32)
    for first, stop in pieces(work, 0, count, count, 1):
        for each in range(first, stop):
            start = draws.rows[each] * stride
            row = logits[start : start + size]
            total = _weigh(row, draws.inverse_temperatures[each], weights, sums, largest)
            lowest, ties = draws.min_ps[each], size
            top_k, top_p = draws.top_ks[each], draws.top_ps[each]
            if 0 < top_k < size:
                found, _ = _rank(weights, largest, lowest, top_k, 0.0, ranked)
                lowest = max(lowest, ranked[max(0, found - top_k)])
            if top_p < 1:
                if lowest > 0:
                    total = _sum_from(weights, largest, lowest)
                lowest, ties = _nucleus(weights, largest, lowest, top_p * total, ranked)
            if lowest > 0:
                total = _keep(weights, sums, largest, lowest, ties)
            tokens[each] = _find(weights, sums, draws.numbers[each] * total)


@compiled()
def _weigh(row: Any, inverse_temperature: Any, weights: Any, sums: Any, largest: Any) -> Any:
    """Each token's weight, 1 for the likeliest, and each block's sum and largest; returns the total."""
    best = np.float32(-np.inf)
    for block in range(sums.size):
        largest[block] = _largest(row[block * _BLOCK : (block + 1) * _BLOCK])
        best = max(best, largest[block])
    total = 0.0
    for block in range(sums.size):
        part = row[block * _BLOCK : (block + 1) * _BLOCK]
        into = weights[block * _BLOCK : (block + 1) * _BLOCK]
        if (largest[block] - best) * inverse_temperature < _LOWEST:
            into[:] = 0
            sums[block], largest[block] = 0.0, np.float32(0)
        else:
            _exponentials(part, best, inverse_temperature, into)
            sums[block], largest[block] = _sum(into), _largest(into)
        total += sums[block]
    return total


@compiled()
def _exponentials(row: Any, best: Any, factor: Any, into: Any) -> None:
    """`exp((row - best) * factor)`, to 2e-7 of it; zero where that is next to nothing."""
    for i in range(row.size):
        scaled = (row[i] - best) * factor
        x = max(scaled, _LOWEST)
        shifted = x * _LOG2_E + _ROUNDING
        whole = shifted - _ROUNDING
        rest = (x - whole * _LN_2_HIGH) - whole * _LN_2_LOW
        power = _TERMS[0]
        power = power * rest + _TERMS[1]
        power = power * rest + _TERMS[2]
        power = power * rest + _TERMS[3]
        power = power * rest + _TERMS[4]
        power = power * rest + _TERMS[5]
        power = power * rest + _TERMS[6]
        power = power * rest + _TERMS[7]
        bits = np.float32(power).view(np.int32) + (np.float32(shifted).view(np.int32) << 23)
        into[i] = np.int32(bits).view(np.float32) if scaled >= _LOWEST else np.float32(0)


@compiled(fast=True)
def _sum(numbers: Any) -> Any:
    total = 0.0
    for i in range(numbers.size):
        total += numbers[i]
    return total


@compiled()
def _largest(numbers: Any) -> Any:
    # As whole numbers in the same order, which vectors compare sooner.
    largest = np.int32(-(2**31))
    for i in range(numbers.size):
        bits = np.float32(numbers[i]).view(np.int32)
        largest = max(largest, np.int32(bits ^ ((bits >> 31) & 0x7FFFFFFF)))
    return np.int32(largest ^ ((largest >> 31) & 0x7FFFFFFF)).view(np.float32)


@compiled()
def _sum_from(weights: Any, largest: Any, lowest: Any) -> Any:
    """The sum of all weights that are at least `lowest`."""
    total = 0.0
    for block in range(largest.size):
        if largest[block] >= lowest:
            for i in range(block * _BLOCK, min(weights.size, (block + 1) * _BLOCK)):
                if weights[i] >= lowest:
                    total += weights[i]
    return total


@compiled()
def _rank(weights: Any, largest: Any, lowest: Any, count: Any, total: Any, ranked: Any) -> Any:
    """The largest weights, in rising order: `count` and a sum of `total` at least, if there are.

    None is below `lowest`.

    Returns:
        How many there are in `ranked`, and their sum.
    """
    limit = _LIMIT
    while True:
        limit = max(limit, lowest)
        found, added = 0, 0.0
        for block in range(largest.size):
            if largest[block] >= limit:
                for i in range(block * _BLOCK, min(weights.size, (block + 1) * _BLOCK)):
                    if weights[i] >= limit:
                        ranked[found] = weights[i]
                        added += weights[i]
                        found += 1
        if limit <= lowest or (found >= count and added >= total):
            ranked[:found].sort()
            return found, added
        limit = limit * _LOWERED if limit > np.float32(1e-30) else np.float32(0)


@compiled()
def _nucleus(weights: Any, largest: Any, lowest: Any, wanted: Any, ranked: Any) -> Any:
    """The lowest of the fewest, largest weights that sum to `wanted`, and how many of them it is."""
    found, _ = _rank(weights, largest, lowest, 1, wanted, ranked)
    last = found - 1
    added = np.float64(ranked[last])
    while added < wanted and last > 0:
        last -= 1
        added += ranked[last]
    ties = 0
    while last + ties < found and ranked[last + ties] == ranked[last]:
        ties += 1
    return ranked[last], ties


@compiled()
def _keep(weights: Any, sums: Any, largest: Any, lowest: Any, ties: Any) -> Any:
    """Forget all weights below `lowest`, and of those that equal it all but `ties`; the others' sum."""
    total = 0.0
    for block in range(sums.size):
        sums[block] = 0.0
        if largest[block] < lowest:
            continue
        for i in range(block * _BLOCK, min(weights.size, (block + 1) * _BLOCK)):
            kept = weights[i] >= lowest
            if weights[i] == lowest:
                kept = ties > 0
                ties -= 1
            if kept:
                sums[block] += weights[i]
            else:
                weights[i] = 0
        total += sums[block]
    return total


@compiled()
def _find(weights: Any, sums: Any, wanted: Any) -> Any:
    """The token at which the sum of the weights, in vocabulary order, is above `wanted`."""
    block, before = 0, 0.0
    last = 0
    for each in range(sums.size):
        if sums[each] > 0:
            last = each
    while block < last and (sums[block] == 0 or before + sums[block] <= wanted):
        before += sums[block]
        block += 1
    token = block * _BLOCK
    for i in range(block * _BLOCK, min(weights.size, (block + 1) * _BLOCK)):
        if weights[i] > 0:
            token = i
            before += weights[i]
            if before > wanted:
                break
    return token
