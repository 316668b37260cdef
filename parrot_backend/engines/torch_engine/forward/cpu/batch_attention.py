"""A step's attention on the CPU."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from parrot_backend.engines.cores import usable_cores
from parrot_backend.engines.torch_engine.forward.attention import Span, new_slots
from parrot_backend.engines.torch_engine.forward.cpu.attention import attend_alone
from parrot_backend.engines.torch_engine.forward.cpu.microkernels import HEAD_COLUMNS, HEAD_LANES
from parrot_backend.engines.torch_engine.forward.cpu.plan import Plan, plan_attention
from parrot_backend.engines.torch_engine.forward.cpu.team import together
from parrot_backend.engines.torch_engine.memory.kv_cache import KVCache


def fits(cache: KVCache) -> bool:
    """Whether the heads of all layers are as wide as the micro-kernels want them."""
    pairs = zip(cache.keys, cache.values, strict=True)
    return all(
        keys.shape[2] % HEAD_LANES == 0
        and values.shape[2] % HEAD_COLUMNS == 0
        and keys.dtype in (torch.float32, torch.float16)
        for keys, values in pairs
    )


class CpuAttention:
    """Stores each row's key and value in its slot, then attends; see `plan`.

    Args:
        cache: the keys and values of all slots, for which `fits` holds.
        spans: the step's rows, in order.
    """

    def __init__(self, cache: KVCache, spans: Sequence[Span]) -> None:
        self._cache, self._spans = cache, spans
        self._plans: dict[tuple[int, int, int], Plan] = {}
        self._new = new_slots(spans, cache.device)
        self.slots = self._new.numpy()

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
    ) -> Tensor:
        """See `StepAttention`; float32."""
        self._cache.write(layer, self._new, key.transpose(0, 1), value.transpose(0, 1))
        rows, heads, dim = query.shape
        keys, values = self._cache.arrays
        group, value_dim = heads // key.shape[1], value.shape[2]
        output = query.new_empty(rows, heads, value_dim)
        together(
            attend_alone,
            1,
            query.reshape(rows, -1).contiguous().numpy(),
            group,
            (keys[layer], values[layer]),
            np.float32(dim**-0.5 if scaling is None else scaling),
            self.plan(key.shape[1], group, max(dim, value_dim)),
            output.view(rows, -1).numpy(),
        )
        return output

    def plan(self, kv_heads: int, group: int, dim: int) -> Plan:
        """The order in which the rows attend; made once, unless layers have different heads."""
        shape = (kv_heads, group, dim)
        if shape not in self._plans:
            self._plans[shape] = plan_attention(
                self._spans, kv_heads=kv_heads, group=group, dim=dim, threads=usable_cores()
            )
        return self._plans[shape]
