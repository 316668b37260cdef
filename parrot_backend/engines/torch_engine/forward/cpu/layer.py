"""The layers of a Llama, compiled, and what comes before and behind them."""

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from parrot_backend.engines.torch_engine.forward.cpu.attention import attend
from parrot_backend.engines.torch_engine.forward.cpu.compiling import compiled
from parrot_backend.engines.torch_engine.forward.cpu.microkernels import COLUMNS
from parrot_backend.engines.torch_engine.forward.cpu.packing import Packed
from parrot_backend.engines.torch_engine.forward.cpu.products import ADD, GATE, STORE, product
from parrot_backend.engines.torch_engine.forward.cpu.rows import gather, normalized, operand, rotate


class Shape(NamedTuple):
    """What the layers of a model have in common."""

    heads: int
    kv_heads: int
    dim: int
    eps: float
    scaling: float

    @property
    def group(self) -> int:
        """Query heads that read one head of keys."""
        return self.heads // self.kv_heads


class Layer(NamedTuple):
    """A layer's weights; the norms of queries and keys `[dim]` are empty where there are none.

    For several layers all arrays have one dimension more, the first.
    """

    before: np.ndarray
    qkv: Packed
    query_norm: np.ndarray
    key_norm: np.ndarray
    out: Packed
    between: np.ndarray
    gate_up: Packed
    down: Packed


class Buffers(NamedTuple):
    """Where a step's T rows pass through: `rows` is what a product multiplies, scaled by `scales`.

    `last` has the R rows whose logits are wanted.
    """

    rows: np.ndarray
    scales: np.ndarray
    qkv: np.ndarray
    attended: np.ndarray
    gated: np.ndarray
    last: np.ndarray


# Phases of a layer, and of what follows the last one.
_LAYER_PHASES, _HEAD_PHASES = 10, 3


@register_jitable
def layer_of(layers: Any, index: Any) -> Any:
    """One of several layers."""
    return Layer(
        layers.before[index],
        _product_of(layers.qkv, index),
        layers.query_norm[index],
        layers.key_norm[index],
        _product_of(layers.out, index),
        layers.between[index],
        _product_of(layers.gate_up, index),
        _product_of(layers.down, index),
    )


@register_jitable
def _product_of(packed: Any, index: Any) -> Any:
    return Packed(
        packed.panels[index], packed.scales[index], packed.bias[index], packed.levels[index]
    )


def phases(layers: int) -> int:
    """How many phases `run_model` has."""
    return layers * _LAYER_PHASES + _HEAD_PHASES


@compiled()
def run_model(
    hidden: Any,
    shape: Any,
    layers: Any,
    turns: Any,
    slots: Any,
    kv: Any,
    plan: Any,
    buffers: Any,
    wanted: Any,
    norm: Any,
    head: Any,
    logits: Any,
    work: Any,
) -> None:
    """Compute all layers in place, for `hidden` `[T, width]`, and the `logits` `[R, vocabulary]`.

    Args:
        shape: see `Shape`.
        layers: see `Layer`.
        turns: cosines and sines of the rows' rotations, `[T, dim / 2]`.
        slots: `[T]`, where the rows' keys and values go.
        kv: keys and values `[layers, kv_heads, slots, dim]`.
        plan: of the step's attention.
        buffers: see `Buffers`.
        wanted: `[R]`, the rows whose logits are.
        norm: behind the layers.
        head: the product that gives logits.
        work: see `Work`.
    """
    scratch = np.empty(plan.scratch, np.float32)
    rows, scales, (keys, values) = buffers.rows, buffers.scales, kv
    group, scaling = shape.heads // shape.kv_heads, np.float32(shape.scaling)
    for index in range(len(keys)):
        layer, of_layer = layer_of(layers, index), (keys[index], values[index])
        at, eps = index * _LAYER_PHASES, shape.eps
        x, depth = normalized(hidden, layer.before, eps, layer.qkv, rows, scales, work, at)
        product(x, depth, scales, layer.qkv, buffers.qkv, STORE, work, at + 1)
        rotate(buffers.qkv, shape, layer, turns, slots, of_layer, work, at + 2)
        attended = buffers.attended
        attend(buffers.qkv, group, of_layer, scaling, plan, scratch, attended, work, at + 3)
        # Each has a name of its own: in float32 they are arrays of different types.
        y, depth = operand(attended, layer.out, rows, scales, work, at + 4)
        product(y, depth, scales, layer.out, hidden, ADD, work, at + 5)
        x, depth = normalized(hidden, layer.between, eps, layer.gate_up, rows, scales, work, at + 6)
        product(x, depth, scales, layer.gate_up, buffers.gated, GATE, work, at + 7)
        y, depth = operand(buffers.gated, layer.down, rows, scales, work, at + 8)
        product(y, depth, scales, layer.down, hidden, ADD, work, at + 9)
    at, last = len(keys) * _LAYER_PHASES, buffers.last
    gather(hidden, wanted, last, work, at)
    z, depth = normalized(last, norm, shape.eps, head, rows, scales, work, at + 1)
    product(z, depth, scales, head, logits, STORE, work, at + 2)


@compiled()
def look_up(packed: Any, outputs: Any, into: Any) -> None:
    """The weights of some `outputs` `[T]` of a product, `into` `[T, depth]`."""
    for row in range(outputs.size):
        for i in range(into.shape[1]):
            into[row, i] = _weight(packed, outputs[row], i)


def _weight(packed: Any, output: Any, i: Any) -> Any:
    raise NotImplementedError("only compiled code can call this")


@overload(_weight, strict=False)
def _weight_of(packed: Any, output: Any, i: Any) -> Any:
    if packed[0].dtype == types.int8:
        return lambda packed, output, i: (
            packed.panels[output // COLUMNS, i // 2, output % COLUMNS, i % 2]
            * packed.scales[output]
        )
    return lambda packed, output, i: packed.panels[output // COLUMNS, i, output % COLUMNS]
