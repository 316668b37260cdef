"""Finding the smoothing of a model: what its activations are like on a text, and which scales fit."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from parrot_backend.engines.torch_engine.int8 import WEIGHT_STEPS, activation_steps
from parrot_backend.engines.torch_engine.model import ForwardPass
from parrot_backend.engines.torch_engine.smoothing import LayerSmoothing, spread
from parrot_backend.engines.torch_engine.transformers_forward import TransformersForward

_WINDOW = 512
# Of a window's rows every 8th is kept; the first, which the others attend to most, is one of them.
_SAMPLED = 8
# How much of the difficulty goes from activations to weights.
_STRENGTHS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_MEANS_WEIGHT = 10.0


class _WholeText:
    """Attention of a text in one piece, without a cache; a `StepAttention`."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
    ) -> Tensor:
        query, key, value = (t.transpose(0, 1)[None] for t in (query, key, value))
        output = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, enable_gqa=True
        )
        return output[0].transpose(0, 1)


def perplexity(forward: ForwardPass, tokens: Sequence[int]) -> float:
    """Of a text, read in windows of 512 tokens, each without what was before."""
    losses = [
        functional.cross_entropy(logits[:-1].float(), window[1:], reduction="none")
        for window, logits in _read(forward, tokens)
        if len(window) > 1
    ]
    return float(torch.cat(losses).mean().exp())


def calibrate(model: Any, tokens: Sequence[int]) -> list[LayerSmoothing]:
    """The smoothing of each layer of a Llama-like transformers model, by what it does with a text."""
    layers = model.model.layers
    recorders = [_LayerRecorder(layer) for layer in layers]
    with _hooked(recorders):
        for _ in _read(TransformersForward(model), tokens):
            pass
    with torch.inference_mode():
        return [recorder.smoothing() for recorder in recorders]


def _read(forward: ForwardPass, tokens: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Windows of the text `[T]`, and their logits `[T, vocabulary]`."""
    for start in range(0, len(tokens), _WINDOW):
        window = torch.tensor(tokens[start : start + _WINDOW])
        positions = torch.arange(len(window))
        with torch.inference_mode():
            yield window, forward(window, positions, positions, _WholeText())


@contextmanager
def _hooked(recorders: "Sequence[_LayerRecorder]") -> Iterator[None]:
    handles = [handle for recorder in recorders for handle in recorder.listen()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Inputs:
    """What a module is given: a sample of its rows, and how large each channel becomes."""

    def __init__(self) -> None:
        self.sample: list[Tensor] = []
        self.channels = torch.zeros(1)

    def __call__(self, module: torch.nn.Module, arguments: tuple[Tensor, ...]) -> None:
        rows = arguments[0].flatten(0, -2)
        self.sample.append(rows[::_SAMPLED].clone())
        self.channels = self.channels.maximum(rows.abs().amax(0))


class _LayerRecorder:
    """Listens to one layer's modules and finds its scales."""

    def __init__(self, layer: Any) -> None:
        self._attention, self._mlp = layer.self_attn, layer.mlp
        self._inputs = [_Inputs() for _ in range(4)]

    def listen(self) -> list[Any]:
        """Handles of the hooks, to be removed."""
        attention, mlp = self._attention, self._mlp
        modules = [attention.q_proj, attention.o_proj, mlp.gate_proj, mlp.down_proj]
        pairs = zip(modules, self._inputs, strict=True)
        return [module.register_forward_pre_hook(inputs) for module, inputs in pairs]

    def smoothing(self) -> LayerSmoothing:
        """The best scales for each product."""
        attention, mlp = self._attention, self._mlp
        qkv, out, gate_up, down = self._inputs
        dim, values = attention.head_dim, attention.v_proj.weight.shape[0]
        group = attention.o_proj.weight.shape[1] // values

        def of_group(heads: Tensor) -> Tensor:
            """One scale for the channels of all query heads that read one value head."""
            return spread(heads.view(-1, group, dim).amax(1).reshape(-1), group, dim)

        spread_out = _best_scales(out, attention.o_proj.weight, of_group)
        return LayerSmoothing(
            qkv=_best_scales(qkv, _rows(attention.q_proj, attention.k_proj, attention.v_proj)),
            out=spread_out.view(-1, group, dim)[:, 0].reshape(-1),
            mlp=_best_scales(gate_up, _rows(mlp.gate_proj, mlp.up_proj)),
            down=_best_scales(down, mlp.down_proj.weight),
        )


def _rows(*modules: Any) -> Tensor:
    return torch.cat([module.weight for module in modules])


def _best_scales(
    inputs: _Inputs, weight: Tensor, shared: Callable[[Tensor], Tensor] = lambda channels: channels
) -> Tensor:
    """The scales `[in]` with which the quantized product is expected to be nearest to the exact one."""
    rows = torch.cat(inputs.sample)
    activations = shared(inputs.channels).clamp_min(1e-5)
    columns = shared(weight.abs().amax(0)).clamp_min(1e-5)
    sizes = (rows @ weight.T).square().sum(-1).clamp_min(1e-30)
    candidates = [activations**a / columns ** (1 - a) for a in _STRENGTHS]
    errors = [_error(rows / scales, weight * scales, sizes) for scales in candidates]
    return candidates[min(range(len(errors)), key=errors.__getitem__)]


def _error(rows: Tensor, weight: Tensor, sizes: Tensor) -> float:
    """How far rounding is expected to move a product, relative to `sizes`, its rows' squared norms.

    Rounding moves a value by a part of its step, which is the largest value of its row by the number
    of steps. The worst row counts beside the mean: it is a token that all later ones attend to, whose
    few huge values leave the others too coarse.
    """
    of_rows = (rows.abs().amax(-1) / activation_steps()).square() * weight.square().sum()
    of_weight = (weight.abs().amax(1) / WEIGHT_STEPS).square().sum() * rows.square().sum(-1)
    errors = (of_rows + of_weight) / sizes
    return float(errors.max() + _MEANS_WEIGHT * errors.mean())
