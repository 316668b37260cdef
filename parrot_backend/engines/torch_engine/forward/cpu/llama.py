"""The fast path for the Llama family on the CPU: all layers in one compiled call."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from parrot_backend.engines.torch_engine.forward.cpu.batch_attention import CpuAttention
from parrot_backend.engines.torch_engine.forward.cpu.compiling import threads
from parrot_backend.engines.torch_engine.forward.cpu.layer import (
    Buffers,
    Layer,
    Shape,
    look_up,
    run_head,
    run_layers,
)
from parrot_backend.engines.torch_engine.forward.cpu.microkernels import COLUMNS, HEAD_COLUMNS
from parrot_backend.engines.torch_engine.forward.cpu.packing import pack, side_by_side
from parrot_backend.engines.torch_engine.forward.forward_pass import Step
from parrot_backend.engines.torch_engine.forward.layer_weights import (
    LayerWeights,
    affine,
    layer_weights,
)
from parrot_backend.engines.torch_engine.memory.kv_cache import KVCache

# Rows of whole numbers are padded to a multiple of their products' depth.
_PADDING = 4


FAMILY = frozenset({"llama", "mistral", "qwen2", "qwen3"})


def is_llama(config: Any) -> bool:
    """Whether `CpuLlama` computes what transformers' model of this configuration does."""
    return config.model_type in FAMILY and config.hidden_act == "silu"


def fits_kernels(config: Any) -> bool:
    """Whether a Llama-like model of this configuration is as wide as the micro-kernels want it."""
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return bool(config.hidden_size % COLUMNS == 0 and dim % HEAD_COLUMNS == 0)


class CpuLlama:
    """A Llama-like model's weights as the micro-kernels read them, each once.

    In 8 bits, where the model has been quantized in place, keys and values are float16.

    Args:
        model: a transformers model that `is_llama` and `fits_kernels`; not needed afterwards.
    """

    def __init__(self, model: Any) -> None:
        decoder, config = model.model, model.config
        first = layer_weights(decoder.layers[0])
        attention = decoder.layers[0].self_attn
        head = affine(model.lm_head)
        self.shape = Shape(
            heads=first.heads[0],
            kv_heads=first.heads[1],
            dim=first.dim,
            eps=float(config.rms_norm_eps),
            scaling=float(attention.scaling),
        )
        self._rotary = decoder.rotary_emb
        self.layers = _room(_packed(first), len(decoder.layers))
        for index, layer in enumerate(decoder.layers):
            _fill(self.layers, index, _packed(layer_weights(layer)))
        self._norm = _numbers(decoder.norm.weight)
        self.head = pack(head)
        tied = config.tie_word_embeddings
        self._embeddings = None if tied else decoder.embed_tokens.weight.detach().clone()
        self.width, self._gated = config.hidden_size, config.intermediate_size
        self._outputs = len(head.weight)
        self.vocabulary = decoder.embed_tokens.num_embeddings
        self._int8 = head.scales is not None

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
        attention, shape, count = CpuAttention(cache, step.spans), self.shape, threads()
        plan = attention.plan(shape.kv_heads, shape.group, shape.dim)
        hidden = self._embedded(torch.tensor(step.tokens))
        turns, buffers = self._turns(step.positions), self.buffers(len(step.tokens))
        kv, slots = cache.arrays, attention.slots
        run_layers(hidden, shape, self.layers, turns, slots, kv, plan, buffers, count)
        logits = torch.empty(len(step.rows), len(self.head.scales))
        run_head(
            hidden[step.rows],
            self._norm,
            shape.eps,
            self.head,
            buffers,
            logits.numpy(),
            count,
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
        cos, sin = self._rotary(torch.empty(0), torch.tensor([positions]))
        half = cos.shape[-1] // 2
        return _numbers(cos[0, :, :half]), _numbers(sin[0, :, :half])

    def buffers(self, rows: int) -> Buffers:
        """Where a step's rows pass through."""
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
        )


def _room(part: Any, count: int) -> Any:
    """Arrays for `count` layers like `part`."""
    if isinstance(part, tuple):
        return type(part)(*(_room(of_part, count) for of_part in part))
    return np.empty((count, *np.shape(part)), np.asarray(part).dtype)


def _fill(room: Any, index: int, part: Any) -> None:
    if isinstance(part, tuple):
        for of_room, of_part in zip(room, part, strict=True):
            _fill(of_room, index, of_part)
    else:
        room[index] = part


def _bytes(part: Any) -> int:
    if isinstance(part, tuple):
        return sum(map(_bytes, part))
    return np.asarray(part).nbytes


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
