"""The fast path for the Llama family on the CPU: all layers in one compiled call."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from parrot_backend.engines.store.outlook import FAST
from parrot_backend.engines.torch_engine.forward.cpu.batch_attention import CpuAttention
from parrot_backend.engines.torch_engine.forward.cpu.layer import (
    Buffers,
    Layer,
    Shape,
    look_up,
    phases,
    run_model,
)
from parrot_backend.engines.torch_engine.forward.cpu.microkernels import COLUMNS, HEAD_COLUMNS
from parrot_backend.engines.torch_engine.forward.cpu.packing import Packed, pack, side_by_side
from parrot_backend.engines.torch_engine.forward.cpu.team import together
from parrot_backend.engines.torch_engine.forward.forward_pass import Step
from parrot_backend.engines.torch_engine.forward.layer_weights import (
    Affine,
    LayerWeights,
    affine,
    layer_weights,
)
from parrot_backend.engines.torch_engine.memory.kv_cache import KVCache

# Rows of whole numbers are padded to a multiple of their products' depth.
_PADDING = 4


FAMILY = FAST


def is_llama(config: Any) -> bool:
    """Whether `CpuLlama` computes what transformers' model of this configuration does."""
    return config.model_type in FAMILY and config.hidden_act == "silu"


def fits_kernels(config: Any) -> bool:
    """Whether a Llama-like model of this configuration is as wide as the micro-kernels want it."""
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return bool(config.hidden_size % COLUMNS == 0 and dim % HEAD_COLUMNS == 0)


class Numbers(NamedTuple):
    """What is to be known of a model beside its weights.

    `turn_scaling` is that of the rotations' cosines and sines. The head gives `outputs` logits, for
    tokens of a `vocabulary`.
    """

    shape: Shape
    turn_scaling: float
    outputs: int
    vocabulary: int


class Weights(NamedTuple):
    """A model's arrays, as the micro-kernels read them; `layers` has all layers in one.

    `embeddings` `[vocabulary, width]` are empty where they are the head's. The rotations have
    `frequencies` `[dim / 2]`.
    """

    layers: Layer
    norm: np.ndarray
    head: Packed
    embeddings: np.ndarray
    frequencies: np.ndarray


Room = Callable[[str, tuple[int, ...], np.dtype[Any]], np.ndarray]
"""Makes an array of a name, shape and type, to be filled."""


def numbers_of(model: Any) -> Numbers:
    """Those of a transformers model that `is_llama`."""
    first = layer_weights(model.model.layers[0])
    shape = Shape(
        heads=first.heads[0],
        kv_heads=first.heads[1],
        dim=first.dim,
        eps=float(model.config.rms_norm_eps),
        scaling=float(model.model.layers[0].self_attn.scaling),
    )
    return Numbers(
        shape,
        turn_scaling=float(model.model.rotary_emb.attention_scaling),
        outputs=len(model.lm_head.weight),
        vocabulary=model.model.embed_tokens.num_embeddings,
    )


def weights_of(model: Any, room: Room) -> Weights:
    """The weights of a transformers model that `is_llama` and `fits_kernels`, packed layer by layer."""
    decoder = model.model
    tied = model.config.tie_word_embeddings
    embeddings = torch.empty(0) if tied else decoder.embed_tokens.weight
    return Weights(
        layers=_stacked([partial(_packed_layer, layer) for layer in decoder.layers], room),
        norm=_copied(_numbers(decoder.norm.weight), room, "norm"),
        head=_copied(pack(affine(model.lm_head)), room, "head"),
        embeddings=_copied(_numbers(embeddings), room, "embeddings"),
        frequencies=_copied(_numbers(decoder.rotary_emb.inv_freq), room, "frequencies"),
    )


def weights_from(array: Callable[[str], np.ndarray]) -> Weights:
    """What `weights_of` has made, out of the arrays by the names that it gave them to `Room`."""

    def part(kind: type, name: str) -> Any:
        if issubclass(kind, tuple):
            fields = kind.__annotations__.items()
            return kind(*(part(of, f"{name}.{field}") for field, of in fields))
        found = array(name)
        return found if found.ndim else found.item()

    return Weights(*(part(kind, name) for name, kind in Weights.__annotations__.items()))


def array_in_memory(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Room for an array in this process's own memory; see `Room`."""
    return np.empty(shape, dtype)


class CpuLlama:
    """A Llama-like model, computed by the micro-kernels.

    In 8 bits, where its weights have them, keys and values are float16.

    Args:
        numbers: see `Numbers`.
        weights: see `Weights`.
    """

    def __init__(self, numbers: Numbers, weights: Weights) -> None:
        self.shape = numbers.shape
        self.layers, self._norm, self.head, embeddings, frequencies = weights
        self._embeddings = torch.from_numpy(embeddings) if embeddings.size else None
        self._frequencies = torch.from_numpy(frequencies)
        self._turn_scaling = numbers.turn_scaling
        self.width, self._outputs = self._norm.size, numbers.outputs
        self.vocabulary = numbers.vocabulary
        self._int8 = self.head.panels.dtype == np.int8

    @classmethod
    def of(cls, model: Any) -> "CpuLlama":
        """The same as a transformers model that `is_llama` and `fits_kernels`, in memory of its own."""
        return cls(numbers_of(model), weights_of(model, array_in_memory))

    @classmethod
    def smallest(cls, *, int8: bool) -> "CpuLlama":
        """One of zeros, for which the same kernels are compiled as for any."""
        width, dim = COLUMNS, HEAD_COLUMNS

        def product(outputs: int, depth: int) -> Affine:
            if int8:
                zeros = torch.zeros(outputs, depth, dtype=torch.int8)
                return Affine(zeros, None, torch.ones(outputs))
            return Affine(torch.zeros(outputs, depth), None)

        layer = LayerWeights(
            before=torch.ones(width),
            qkv=product(3 * dim, width),
            query_norm=None,
            key_norm=None,
            out=product(width, dim),
            between=torch.ones(width),
            gate=product(width, width),
            up=product(width, width),
            down=product(width, width),
            heads=(1, 1, 1),
            dim=dim,
        )
        weights = Weights(
            layers=_stacked([partial(_packed, layer)], array_in_memory),
            norm=np.ones(width, np.float32),
            head=pack(product(width, width)),
            embeddings=np.empty(0, np.float32),
            frequencies=np.ones(dim // 2, np.float32),
        )
        return cls(Numbers(Shape(1, 1, dim, 1e-5, 1.0), 1.0, width, width), weights)

    @property
    def kv_dtype(self) -> torch.dtype:
        """See `ForwardPass`."""
        return torch.float16 if self._int8 else torch.float32

    @property
    def weight_bytes(self) -> int:
        """Bytes that the weights take, norms included."""
        embeddings = 0 if self._embeddings is None else self._embeddings.nbytes
        return _bytes(self.layers) + _bytes(self.head) + self._norm.nbytes + embeddings

    def __call__(self, step: Step, cache: KVCache) -> Tensor:
        """See `ForwardPass`."""
        attention, shape = CpuAttention(cache, step.spans), self.shape
        logits = torch.empty(len(step.rows), len(self.head.scales))
        together(
            run_model,
            phases(len(self.layers.before)),
            self._embedded(torch.tensor(step.tokens)),
            shape,
            self.layers,
            self._turns(step.positions),
            attention.slots,
            cache.arrays,
            attention.plan(shape.kv_heads, shape.group, shape.dim),
            self.buffers(len(step.tokens), len(step.rows)),
            np.array(step.rows, np.int64),
            self._norm,
            self.head,
            logits.numpy(),
        )
        return logits[:, : self._outputs]

    def _embedded(self, tokens: Tensor) -> np.ndarray:
        hidden = np.empty((len(tokens), self.width), np.float32)
        if self._embeddings is None:
            look_up(self.head, tokens.numpy(), hidden)
        else:
            hidden[:] = self._embeddings[tokens].float().numpy()
        return hidden

    def _turns(self, positions: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Cosines and sines of each row's rotations `[T, dim / 2]`."""
        # As transformers computes them, each for both halves: vectors of another length may round
        # otherwise.
        angles = torch.tensor(positions)[:, None].float() * self._frequencies
        both, half = torch.cat((angles, angles), -1), len(self._frequencies)
        cos, sin = (turns * self._turn_scaling for turns in (both.cos(), both.sin()))
        return _numbers(cos[:, :half]), _numbers(sin[:, :half])

    def buffers(self, rows: int, wanted: int) -> Buffers:
        """Where a step's rows pass through, of which the logits of some are `wanted`."""
        shape = self.shape
        attended = shape.heads * shape.dim
        gated = self.layers.gate_up.panels.shape[1] * COLUMNS // 2
        widest = max(self.width, attended, gated) + _PADDING
        return Buffers(
            rows=np.empty(rows * widest, np.int16 if self._int8 else np.float32),
            scales=np.ones(rows, np.float32),
            qkv=np.empty((rows, self.layers.qkv.scales.shape[1]), np.float32),
            attended=np.empty((rows, attended), np.float32),
            gated=np.empty((rows, gated), np.float32),
            last=np.empty((wanted, self.width), np.float32),
        )


def _stacked(layers: list[Callable[[], Layer]], room: Room) -> Layer:
    """All layers in one, of which no more than one is held beside it."""
    stacked: Layer = _room_for(layers[0](), len(layers), room, "layers")
    for index, make in enumerate(layers):
        _fill(stacked, index, make())
    return stacked


def _room_for(part: Any, count: int, room: Room, name: str) -> Any:
    """Arrays for `count` parts like this one."""
    if isinstance(part, tuple):
        named = zip(type(part)._fields, part, strict=True)  # type: ignore[attr-defined]
        return type(part)(*(_room_for(each, count, room, f"{name}.{of}") for of, each in named))
    return room(name, (count, *np.shape(part)), np.asarray(part).dtype)


def _fill(stacked: Any, index: int, part: Any) -> None:
    if isinstance(part, tuple):
        for of_stacked, of_part in zip(stacked, part, strict=True):
            _fill(of_stacked, index, of_part)
    else:
        stacked[index] = part


def _copied(part: Any, room: Room, name: str) -> Any:
    """Of a single part, its arrays in their room; a number stays one."""
    if isinstance(part, tuple):
        named = zip(type(part)._fields, part, strict=True)  # type: ignore[attr-defined]
        return type(part)(*(_copied(each, room, f"{name}.{of}") for of, each in named))
    array = room(name, np.shape(part), np.asarray(part).dtype)
    array[...] = part
    return array if array.ndim else array.item()


def _bytes(part: Any) -> int:
    if isinstance(part, tuple):
        return sum(map(_bytes, part))
    return np.asarray(part).nbytes


def _packed_layer(layer: Any) -> Layer:
    return _packed(layer_weights(layer))


def _packed(weights: LayerWeights) -> Layer:
    nothing = torch.empty(0)
    return Layer(
        before=_numbers(weights.before),
        qkv=pack(weights.qkv),
        query_norm=_numbers(nothing if weights.query_norm is None else weights.query_norm),
        key_norm=_numbers(nothing if weights.key_norm is None else weights.key_norm),
        out=pack(weights.out),
        between=_numbers(weights.between),
        gate_up=pack(side_by_side(weights.gate, weights.up)),
        down=pack(weights.down),
    )


def _numbers(tensor: Tensor) -> np.ndarray:
    numbers: np.ndarray = tensor.detach().float().contiguous().numpy().copy()
    return numbers
