"""The fast path for the Llama family on the CPU: few compiled calls, one for each layer."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from parrot_backend.engines.torch_engine.cpu.compiling import threads
from parrot_backend.engines.torch_engine.cpu.layer import (
    Buffers,
    Layer,
    Shape,
    look_up,
    run_head,
    run_layer,
)
from parrot_backend.engines.torch_engine.cpu.microkernels import COLUMNS, HEAD_COLUMNS
from parrot_backend.engines.torch_engine.cpu.packing import Packed, pack, side_by_side
from parrot_backend.engines.torch_engine.cpu.step import CpuAttention
from parrot_backend.engines.torch_engine.kv_cache import KVCache
from parrot_backend.engines.torch_engine.layer_weights import LayerWeights, affine, layer_weights
from parrot_backend.engines.torch_engine.model import Step

# Rows of whole numbers are padded to a multiple of their products' depth.
_PADDING = 4


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
        weights = [layer_weights(layer) for layer in decoder.layers]
        attention = decoder.layers[0].self_attn
        head = affine(model.lm_head)
        self.shape = Shape(
            heads=weights[0].heads[0],
            kv_heads=weights[0].heads[1],
            dim=weights[0].dim,
            eps=float(config.rms_norm_eps),
            scaling=float(attention.scaling),
        )
        self._rotary = decoder.rotary_emb
        self.layers = [_packed(layer) for layer in weights]
        self._norm = _numbers(decoder.norm.weight)
        self.head = pack(head)
        tied = config.tie_word_embeddings
        self._embeddings = None if tied else decoder.embed_tokens.weight.detach().clone()
        self.width, self._gated = config.hidden_size, config.intermediate_size
        self._vocabulary = len(head.weight)
        self._int8 = head.steps is not None

    @property
    def kv_dtype(self) -> torch.dtype:
        """See `ForwardPass`."""
        return torch.float16 if self._int8 else torch.float32

    @property
    def weight_bytes(self) -> int:
        """Bytes that the weights take, norms included."""
        packed = [self.head, *(part for layer in self.layers for part in layer)]
        arrays = [a for part in packed for a in (part if isinstance(part, Packed) else [part])]
        numbers = sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))
        return numbers + (0 if self._embeddings is None else self._embeddings.nbytes)

    def __call__(self, step: Step, cache: KVCache) -> Tensor:
        """See `ForwardPass`."""
        attention, shape, count = CpuAttention(cache, step.spans), self.shape, threads()
        plan = attention.plan(shape.kv_heads, shape.group, shape.dim)
        hidden = self._embedded(torch.tensor(step.tokens))
        turns, buffers = self._turns(step.positions), self.buffers(len(step.tokens))
        for layer, kv in zip(self.layers, cache.arrays, strict=True):
            run_layer(hidden, shape, layer, turns, attention.slots, kv, plan, buffers, count)
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
        return logits[:, : self._vocabulary]

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
        gated = self.layers[0].gate_up.panels.shape[0] * COLUMNS // 2
        widest = max(self.width, attended, gated) + _PADDING
        return Buffers(
            rows=np.empty(rows * widest, np.int16 if self._int8 else np.float32),
            steps=np.ones(rows, np.float32),
            qkv=np.empty((rows, len(self.layers[0].qkv.scales)), np.float32),
            attended=np.empty((rows, attended), np.float32),
            gated=np.empty((rows, gated), np.float32),
        )


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
