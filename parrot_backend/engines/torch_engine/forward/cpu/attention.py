"""Attention of a step's rows over the keys and values of their slots, shared ones read once."""

from typing import Any

import numpy as np

from parrot_backend.engines.torch_engine.forward.cpu.compiling import compiled
from parrot_backend.engines.torch_engine.forward.cpu.microkernels import (
    HEAD_COLUMNS,
    QUERIES,
    TILE_ROWS,
    dots,
    multiply_head,
    softmax,
)
from parrot_backend.engines.torch_engine.forward.cpu.phases import pieces

# Keys and values of so many slots stay in the nearest cache while all rows pass over them.
_SLOTS = 64


@compiled()
def attend(
    query: Any,
    group: Any,
    kv: Any,
    scaling: Any,
    plan: Any,
    scratch: Any,
    out: Any,
    work: Any,
    phase: Any,
) -> None:
    """Attend, in the order of `plan`; a piece is a tile and a head of keys.

    Args:
        query: `[T, .. heads * key_dim ..]`; what follows the queries in a row is not looked at.
        group: query heads that read one head of keys.
        kv: keys and values `[kv_heads, slots, dim]`.
        scaling: of the products.
        plan: see `Plan`.
        scratch: of this thread, see `Plan`.
        out: `[T, heads * value_dim]`.
        work: see `Work`.
        phase: of the work, for this.
    """
    keys, values = kv
    tiles, tile_segments = plan.tiles, plan.tile_segments
    kv_heads = keys.shape[0]
    units = (tiles.size - 1) * kv_heads
    for unit, _ in pieces(work, phase, units, units, 1):
        tile, head = unit // kv_heads, unit % kv_heads
        rows, stop = tiles[tile], tiles[tile + 1]
        _attend_tile(
            query,
            group,
            keys,
            values,
            scaling,
            plan.order[rows:stop],
            plan.lengths[rows:stop],
            plan.segments[tile_segments[tile] : tile_segments[tile + 1]],
            plan.widths[tile],
            head,
            scratch,
            out,
        )


@compiled()
def attend_alone(
    query: Any, group: Any, kv: Any, scaling: Any, plan: Any, out: Any, work: Any
) -> None:
    """As `attend`, as the only phase of its work."""
    scratch = np.empty(plan.scratch, np.float32)
    attend(query, group, kv, scaling, plan, scratch, out, work, 0)


@compiled()
def _attend_tile(
    query: Any,
    group: Any,
    keys: Any,
    values: Any,
    scaling: Any,
    rows: Any,
    lengths: Any,
    segments: Any,
    width: Any,
    head: Any,
    scratch: Any,
    out: Any,
) -> None:
    """All query heads of one head of keys, for a tile's rows: scores, softmax, values.

    Not online: a row's scores are all there before its softmax, so that its sums go along its tokens
    in one order, however these are cut into runs and chunks.
    """
    count, key_dim, dim = rows.size * group, keys.shape[2], values.shape[2]
    scores, rest = scratch[: count * width], scratch[count * width :]
    queries, sums = rest[: count * key_dim], rest[count * key_dim : count * (key_dim + dim)]
    for row in range(count):
        first = (head * group + row % group) * key_dim
        queries[row * key_dim : (row + 1) * key_dim] = query[
            rows[row // group], first : first + key_dim
        ]
    _score(queries, group, keys, lengths, segments, width, head, scores)
    totals = rest[count * (key_dim + dim) :]
    for row in range(count):
        length = lengths[row // group]
        totals[row] = softmax((scores, row * width), length, scaling)
        scores[row * width + length : (row + 1) * width] = 0
    sums[:] = 0
    _weigh(group, values, segments, width, head, scores, sums)
    for row in range(count):
        first = (head * group + row % group) * dim
        inverse = np.float32(1) / totals[row]
        for i in range(dim):
            out[rows[row // group], first + i] = sums[row * dim + i] * inverse


@compiled()
def _score(
    queries: Any,
    group: Any,
    keys: Any,
    lengths: Any,
    segments: Any,
    width: Any,
    head: Any,
    scores: Any,
) -> None:
    """Products of queries and keys; some behind a segment are written, and overwritten by the next."""
    dim = keys.shape[2]
    for segment in range(segments.shape[0]):
        first, stop, slot, length, position = segments[segment]
        base = (head * keys.shape[1] + slot) * dim
        for block in range(0, length, _SLOTS):
            for row in range(first * group, stop * group, QUERIES):
                count = min(QUERIES, stop * group - row)
                seen = min(length, lengths[(row + count - 1) // group] - position) - block
                if seen > 0:
                    dots(
                        count,
                        (queries, row * dim, dim),
                        (keys, base + block * dim, dim),
                        dim,
                        min(seen, _SLOTS),
                        (scores, row * width + position + block, width),
                    )


@compiled()
def _weigh(
    group: Any, values: Any, segments: Any, width: Any, head: Any, weights: Any, sums: Any
) -> None:
    """Add up values, each row's by its own weights."""
    dim = values.shape[2]
    for segment in range(segments.shape[0]):
        first, stop, slot, length, position = segments[segment]
        base = (head * values.shape[1] + slot) * dim
        for block in range(0, length, _SLOTS):
            depth = min(_SLOTS, length - block)
            for row in range(first * group, stop * group, TILE_ROWS):
                count = min(TILE_ROWS, stop * group - row)
                x = (weights, row * width + position + block, width)
                for column in range(0, dim, HEAD_COLUMNS):
                    w = (values, base + block * dim + column, dim)
                    multiply_head(count, x, w, depth, (sums, row * dim + column, dim))
