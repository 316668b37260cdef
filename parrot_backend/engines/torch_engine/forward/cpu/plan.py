"""The order in which a step's rows attend: tiles of neighbours in the tree of their sequences.

    rows 0 .. 3    [ instruction of all      ][ own ]        a tile's segments, in the order of tokens:
                                              [ own ]            rows 0 .. 3  instruction
    rows 4, 5      [ instruction of all ][ a document  ]         row 0 own, row 1 own, ..

A tile reads each segment once for all its rows, while its keys and values are near the core.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np

from parrot_backend.engines.torch_engine.forward.attention import Span
from parrot_backend.engines.torch_engine.forward.cpu.microkernels import HEAD_LANES
from parrot_backend.engines.torch_engine.forward.sharing import cut_shared

# A tile's scores: more of them read keys and values more seldom, and leave the nearer caches.
_SCORES_BYTES = 2**20
# Of a chunk, half of so many rows are computed in vain before a tile's last row is cut off.
_TILE_ROWS = 32
# So many units for each thread at least, that all end at the same time.
_UNITS = 3


class Plan(NamedTuple):
    """Rows in the order of the tree, `order` `[T]`, each with how many tokens it sees, `lengths` `[T]`.

    Tile number i has rows `tiles[i]` to `tiles[i + 1]` of the order, room for `widths[i]` scores of
    each, and likewise its part of `segments` `[S, 5]`, see `_Segment`. A unit is a tile and a head of
    keys; a thread needs `scratch` floats for any of them.
    """

    order: np.ndarray
    lengths: np.ndarray
    tiles: np.ndarray
    widths: np.ndarray
    tile_segments: np.ndarray
    segments: np.ndarray
    scratch: int


class _Segment(NamedTuple):
    """Slots of tokens `position` and on, which rows `first` up to `stop` see, or begin to see.

    The rows are counted from the tile's first, or from the order's.
    """

    first: int
    stop: int
    slot: int
    length: int
    position: int


def plan_attention(
    spans: Sequence[Span], *, kv_heads: int, group: int, dim: int, threads: int
) -> Plan:
    """The plan for a step's rows, which are those of `spans` in order.

    Args:
        kv_heads: heads of keys.
        group: query heads that read one of them.
        dim: numbers in a key or value, the larger of the two.
        threads: that the units are for.
    """
    # Paths that share slots are neighbours then, as their runs begin alike.
    ranked = sorted(range(len(spans)), key=lambda index: spans[index].runs)
    starts = [0, *accumulate(span.count for span in spans)]
    order = [row for i in ranked for row in range(starts[i], starts[i + 1])]
    lengths = [
        length
        for i in ranked
        for length in range(spans[i].start + 1, spans[i].start + spans[i].count + 1)
    ]
    most = max(1, -(-len(order) * kv_heads // (_UNITS * threads)))
    tiles = _tiles(lengths, group, min(most, _TILE_ROWS))
    segments = _by_tile(_segments([spans[i] for i in ranked]), lengths, tiles)
    widths = [_width(max(lengths[first:stop])) for first, stop in pairwise(tiles)]
    rows = [group * (stop - first) for first, stop in pairwise(tiles)]
    return Plan(
        np.array(order),
        np.array(lengths),
        np.array(tiles),
        np.array(widths),
        np.array([0, *accumulate(map(len, segments))]),
        np.array([segment for of_tile in segments for segment in of_tile]),
        max(count * (width + 1 + 2 * dim) for count, width in zip(rows, widths, strict=True)),
    )


def _tiles(lengths: list[int], group: int, most: int) -> list[int]:
    """Bounds of tiles of at most `most` rows, whose scores fit into `_SCORES_BYTES`."""
    bounds, longest = [0], 0
    for row, length in enumerate(lengths):
        longest = max(longest, length)
        count = row + 1 - bounds[-1]
        if count > 1 and (count > most or count * group * longest * 4 > _SCORES_BYTES):
            bounds.append(row)
            longest = length
    return [*bounds, len(lengths)]


def _segments(spans: Sequence[Span]) -> list[_Segment]:
    """What the spans' rows see, each shared part once, in the order of a path's tokens."""
    starts = [0, *accumulate(span.count for span in spans)]
    positions = [0] * len(spans)
    segments = []
    for runs, members in cut_shared([span.runs for span in spans]):
        first, stop = starts[members[0]], starts[members[-1] + 1]
        position = positions[members[0]]
        for slot, length in runs:
            segments.append(_Segment(first, stop, slot, length, position))
            position += length
        for member in members:
            positions[member] = position
    return segments


def _by_tile(
    segments: list[_Segment], lengths: list[int], tiles: list[int]
) -> list[list[_Segment]]:
    """What each tile's rows see of `segments`."""
    by_tile: list[list[_Segment]] = [[] for _ in tiles[1:]]
    tile_of = [
        tile for tile, (first, stop) in enumerate(pairwise(tiles)) for _ in range(first, stop)
    ]
    for segment in segments:
        for tile in range(tile_of[segment.first], tile_of[segment.stop - 1] + 1):
            first, stop = max(segment.first, tiles[tile]), min(segment.stop, tiles[tile + 1])
            # Of a chunk's own slots, no more than its last row in the tile sees.
            length = min(segment.length, max(lengths[first:stop]) - segment.position)
            if length > 0:
                rows = (first - tiles[tile], stop - tiles[tile])
                by_tile[tile].append(_Segment(*rows, segment.slot, length, segment.position))
    return by_tile


def _width(length: int) -> int:
    """Room for so many scores, and for the vector that is written behind them."""
    return (length + 2 * HEAD_LANES - 1) // HEAD_LANES * HEAD_LANES
