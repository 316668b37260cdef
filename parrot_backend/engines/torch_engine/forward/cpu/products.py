"""Products of a step's rows with packed weights, and what is done with them while they are near."""

from typing import Any

import numpy as np

from parrot_backend.engines.torch_engine.forward.cpu.compiling import compiled
from parrot_backend.engines.torch_engine.forward.cpu.microkernels import (
    COLUMNS,
    LANES,
    TILE_ROWS,
    finish,
    finish_gate,
    multiply,
)
from parrot_backend.engines.torch_engine.forward.cpu.phases import pieces

# What becomes of a product: it is stored, it is added to what is there, or it is a gate (SiLU of the
# one half of a panel, times the other).
STORE, ADD, GATE = 0, 1, 2

# Rows that stay in the second cache while a core goes through its panels, and a piece of a panel that
# stays in the first while all of these rows pass.
_ROWS_BYTES = 2**17
_PIECE_BYTES = 12 * 2**10
# Panels that a thread claims at a time at most, which others wait for if it loses its core.
_CLAIM = 16


@compiled()
def product(
    x: Any,
    depth: Any,
    row_scales: Any,
    packed: Any,
    out: Any,
    finish_as: Any,
    work: Any,
    phase: Any,
) -> None:
    """Multiply rows with packed weights; a piece is a panel and a block of rows.

    Args:
        x: the rows, one after the other.
        depth: numbers in a row.
        row_scales: `[T]`, what a row is to be multiplied with.
        packed: the weights.
        out: `[T, N]`; in panels, so that N is a multiple of their columns.
        finish_as: what becomes of the product.
        work: see `Work`.
        phase: of the work, for this.
    """
    rows, count = out.shape[0], packed.panels.shape[0]
    panels, scales, bias = packed.panels, packed.scales, packed.bias
    block = max(1, _ROWS_BYTES // (depth * x.itemsize) // TILE_ROWS) * TILE_ROWS
    blocks = (rows + block - 1) // block
    sums = _room_for_sums(panels, min(block, rows))
    for first, stop in pieces(work, phase, blocks * count, count, _CLAIM):
        row, panel = first // count * block, first % count
        _multiply_block(
            x,
            depth,
            row_scales,
            panels,
            scales,
            bias,
            out,
            finish_as,
            (row, min(row + block, rows)),
            (panel, panel + stop - first),
            sums,
        )


@compiled()
def _room_for_sums(panels: Any, rows: Any) -> Any:
    # numba compiles one of the two: a panel's row has single numbers, or pairs of whole ones.
    if panels.ndim == 4:
        return np.empty((rows, COLUMNS), np.int32)
    return np.empty((rows, COLUMNS), np.float32)


@compiled()
def _multiply_block(
    x: Any,
    depth: Any,
    row_scales: Any,
    panels: Any,
    scales: Any,
    bias: Any,
    out: Any,
    finish_as: Any,
    rows: Any,
    part: Any,
    sums: Any,
) -> None:
    count, length = rows[1] - rows[0], panels.shape[1]
    each = 2 if panels.ndim == 4 else 1
    wide = each * COLUMNS
    pieces = (length * wide * panels.itemsize + _PIECE_BYTES - 1) // _PIECE_BYTES
    piece = (length + pieces - 1) // pieces // 2 * 2 + 2
    for panel in range(part[0], part[1]):
        sums[:count] = 0
        for start in range(0, length, piece):
            w = (panels, (panel * length + start) * wide, wide)
            for row in range(0, count, TILE_ROWS):
                multiply(
                    min(TILE_ROWS, count - row),
                    (x, (rows[0] + row) * depth + start * each, depth),
                    w,
                    min(piece, length - start),
                    (sums, row * COLUMNS, COLUMNS),
                )
        scale, shift = (scales, panel * COLUMNS), (bias, panel * COLUMNS)
        for row in range(count):
            total, row_scale = (sums, row * COLUMNS), row_scales[rows[0] + row]
            into = (rows[0] + row) * out.shape[1]
            if finish_as == GATE:
                finish_gate(total, row_scale, scale, shift, (out, into + panel * LANES))
            else:
                place = (out, into + panel * COLUMNS)
                finish(total, row_scale, scale, shift, place, finish_as == ADD)
