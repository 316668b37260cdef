"""A step's attention as a table of equal tasks, for a device that runs many of them at once.

What the rows of a step see is cut into tiles: some slots, and some rows that see them. Slots that
several rows share are in tiles with all of these rows, so they are read once for a whole block of rows;
many slots are cut into several tiles as well (flash-decoding). Each row of a tile gives one part of the
row's result:

    rows 0-2   [ shared .................. | .................. ]     two tiles of three rows
    row  0     [ own ]                                                one tile
    row  1     [ own ......... | ......... ]                          two tiles
    rows 3-9   [ prompt ]                                             one, of which row 3 sees 1 slot

The parts of row 0 are merged from three, those of row 1 from four (DeFT, arXiv 2404.00242).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from parrot_backend.engines.torch_engine.attention import Span
from parrot_backend.engines.torch_engine.sharing import cut_shared
from parrot_backend.engines.torch_engine.slots import Run, append_runs, count_slots, split_runs

# A tile of one block of rows reads about as many keys as keep a multiprocessor busy for longer than
# it takes to start, and few enough that a long prefix is spread over all of them.
_SPLIT = 256


class _Piece(NamedTuple):
    """Runs of slots, the rows that see any of them, and how many of the first slots each sees."""

    runs: list[Run]
    rows: Sequence[int]
    seen: Sequence[int]


class _Tile(NamedTuple):
    runs: list[Run]
    rows: list[int]
    seen: list[int]


@dataclass(frozen=True, slots=True)
class Tiles:
    """The tables of one step; all are int64.

    `tiles` `[tiles, 4]`: first run, number of runs, first entry, number of entries; those with few
    rows come first, and there are `narrow` of them.
    `runs` `[runs, 2]`: first slot and number of slots.
    `entries` `[parts, 3]`: row, how many of the tile's slots it sees (1 at least), and its part.
    `bounds` `[rows + 1]`: the parts of row `r` are `bounds[r]` up to, without, `bounds[r + 1]`.
    """

    tiles: Tensor
    runs: Tensor
    entries: Tensor
    bounds: Tensor
    narrow: int


def lay_out(spans: Sequence[Span], narrow: int, wide: int, device: torch.device) -> Tiles:
    """Cut the attention of a step into tiles.

    Args:
        spans: the step's rows, in order.
        narrow: rows that a small tile has room for.
        wide: rows that a large tile has room for.
        device: where the tables are to lie.
    """
    small: list[_Tile] = []
    large: list[_Tile] = []
    for piece in _pieces(spans):
        if len(piece.rows) <= narrow:
            small += _cut(piece, narrow)
        else:
            large += _cut(piece, wide)
    tiles = small + large
    rows = torch.tensor([row for tile in tiles for row in tile.rows])
    seen = torch.tensor([seen for tile in tiles for seen in tile.seen])
    parts = torch.empty_like(rows)
    parts[rows.argsort(stable=True)] = torch.arange(len(rows))
    ends = rows.bincount(minlength=sum(span.count for span in spans)).cumsum(0)
    return Tiles(
        _ranges(tiles).to(device),
        torch.tensor([run for tile in tiles for run in tile.runs]).to(device),
        torch.stack([rows, seen, parts], dim=1).to(device),
        torch.cat([torch.zeros(1, dtype=torch.long), ends]).to(device),
        len(small),
    )


def _ranges(tiles: Sequence[_Tile]) -> Tensor:
    """Where each tile's runs and entries begin, and how many there are."""
    counts = torch.tensor([(len(tile.runs), len(tile.rows)) for tile in tiles])
    return torch.stack([counts.cumsum(0) - counts, counts], dim=2).flatten(1)


def _pieces(spans: Sequence[Span]) -> Iterator[_Piece]:
    """All that any row sees; what is shared is there once."""
    ends = accumulate(span.count for span in spans)
    rows = [range(end - span.count, end) for end, span in zip(ends, spans, strict=True)]
    own: list[list[Run]] = [[] for _ in spans]
    for runs, members in cut_shared([split_runs(span.runs, span.start)[0] for span in spans]):
        if len(members) == 1:
            append_runs(own[members[0]], runs)
        else:
            sharing = [row for member in members for row in rows[member]]
            yield _Piece(runs, sharing, [count_slots(runs)] * len(sharing))
    for span, its_rows, runs in zip(spans, rows, own, strict=True):
        before = count_slots(runs)
        append_runs(runs, split_runs(span.runs, span.start)[1])
        yield _Piece(runs, its_rows, range(before + 1, before + 1 + span.count))


def _cut(piece: _Piece, block: int) -> Iterator[_Tile]:
    """Tiles of at most `block` rows.

    With more rows there are tiles enough, and their keys are cut less: parts take memory.
    """
    split = _SPLIT * -(-len(piece.rows) // block)
    for first in range(0, len(piece.rows), block):
        rows = piece.rows[first : first + block]
        seen = piece.seen[first : first + block]
        for start in range(0, max(seen), split):
            count = min(split, max(seen) - start)
            runs = split_runs(split_runs(piece.runs, start)[1], count)[0]
            entries = [
                (row, min(end - start, count))
                for row, end in zip(rows, seen, strict=True)
                if end > start
            ]
            yield _Tile(runs, [row for row, _ in entries], [end for _, end in entries])
