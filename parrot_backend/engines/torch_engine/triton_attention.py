"""Attention of one step on CUDA: two or three launches per layer, whatever the tree."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from parrot_backend.engines.torch_engine.attention import Span, new_slots
from parrot_backend.engines.torch_engine.kv_cache import KVCache
from parrot_backend.engines.torch_engine.tiles import Tiles, lay_out
from parrot_backend.engines.torch_engine.triton_kernels import attend_tile, merge_parts

# The smallest side that tensor cores take, and the largest that leaves registers for the result.
_LEAST, _MOST = 16, 64
# Bytes of a block of queries, keys or values.
_BLOCK_BYTES = 16 * 1024
# Blocks of keys and of values that are on their way, or computed with.
STAGES = 2
_PARTS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a layer's heads are cut: `group` query heads read one of keys, numbers have `itemsize`."""

    group: int
    key_dim: int
    value_dim: int
    itemsize: int

    @property
    def slots(self) -> int:
        """Slots that are read at once."""
        dim = _power_of_two(max(self.key_dim, self.value_dim))
        return min(_MOST, max(_LEAST, _BLOCK_BYTES // (dim * self.itemsize)))

    @property
    def narrow(self) -> int:
        """Queries, rows times heads of a group, that a small tile has room for."""
        return max(_LEAST, _power_of_two(self.group))

    @property
    def wide(self) -> int:
        """Queries that a large tile has room for."""
        return max(self.slots, self.narrow)

    def constants(self, width: int) -> dict[str, int]:
        """What `attend_tile` is compiled with, for tiles of `width` queries."""
        return {
            "group": self.group,
            "key_dim": self.key_dim,
            "value_dim": self.value_dim,
            "row_block": width,
            "slot_block": self.slots,
            "key_block": _power_of_two(self.key_dim),
            "value_block": _power_of_two(self.value_dim),
        }


class TritonAttention:
    """Stores each row's key and value in its slot, then attends tile by tile; see `tiles`.

    A run that rows share is read once per block of rows, at any depth of the tree; what a row sees
    alone, and a prompt's own chunk, are tiles of the same launches. The tables are made once.

    Args:
        cache: the keys and values of all slots.
        spans: the step's rows, in order.
    """

    def __init__(self, cache: KVCache, spans: Sequence[Span]) -> None:
        self._cache = cache
        self._spans = spans
        self._layouts: dict[Geometry, Tiles] = {}
        self._slots = new_slots(spans, cache.device)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
    ) -> Tensor:
        """See `StepAttention`."""
        self._cache.write(layer, self._slots, key.transpose(0, 1), value.transpose(0, 1))
        rows, heads, dim = query.shape
        geometry = Geometry(heads // key.shape[1], dim, value.shape[2], query.element_size())
        tiles = self._layout(geometry)
        scale = dim**-0.5 if scaling is None else scaling
        output = query.new_empty(rows, heads, geometry.value_dim)
        # Triton launches on the current device, which need not be the cache's; no device is -1.
        with torch.cuda.device(query.get_device()):
            parts, lses = self._attend_tiles(layer, query, tiles, geometry, scale)
            merge_parts[rows, heads](
                parts,
                lses,
                tiles.bounds,
                output,
                value_dim=geometry.value_dim,
                value_block=_power_of_two(geometry.value_dim),
                part_block=_PARTS_AT_ONCE,
            )
        return output

    def _layout(self, geometry: Geometry) -> Tiles:
        """The step's tiles; made once, unless its layers have different heads."""
        if geometry not in self._layouts:
            group = geometry.group
            self._layouts[geometry] = lay_out(
                self._spans, geometry.narrow // group, geometry.wide // group, self._cache.device
            )
        return self._layouts[geometry]

    def _attend_tiles(
        self, layer: int, query: Tensor, tiles: Tiles, geometry: Geometry, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Parts `[parts, heads, value_dim]` and their log-sum-exps `[parts, heads]`, in base 2."""
        if query.stride(-1) != 1:
            query = query.contiguous()
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        shape = (len(tiles.entries), query.shape[1])
        parts = query.new_empty(*shape, geometry.value_dim, dtype=torch.float32)
        lses = query.new_empty(shape, dtype=torch.float32)
        small, large = tiles.tiles[: tiles.narrow], tiles.tiles[tiles.narrow :]
        for width, table in ((geometry.narrow, small), (geometry.wide, large)):
            if len(table):
                attend_tile[len(table), len(keys)](
                    query,
                    keys,
                    values,
                    table,
                    tiles.runs,
                    tiles.entries,
                    parts,
                    lses,
                    scale * math.log2(math.e),
                    *query.stride()[:2],
                    keys.stride(0),
                    values.stride(0),
                    **geometry.constants(width),
                    num_stages=STAGES,
                )
        return parts, lses


def _power_of_two(number: int) -> int:
    """The next one, and enough for a tensor core."""
    return max(_LEAST, 1 << (number - 1).bit_length())
