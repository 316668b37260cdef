"""Weights in 8 bits, rounded so that what they compute changes least (GPTQ, arXiv 2210.17323).

One pass over a text is enough: the weights of a product are rounded when the text reaches it, and what
comes behind sees the products of rounded weights.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from parrot_backend.engines.torch_engine.forward.forward_pass import Chunk, StepModel
from parrot_backend.engines.torch_engine.forward.transformers_forward import TransformersForward
from parrot_backend.engines.torch_engine.memory.kv_cache import KVCache, LayerShape
from parrot_backend.engines.torch_engine.memory.slots import Run

_WINDOW = 512
_LEVELS = 127
# What is added to the inputs' second moments, as a share of their mean: a text is only a sample.
_DAMPING = 0.01
# Columns whose errors reach the columns behind them together.
_BLOCK = 32


def quantize(model: Any, shapes: list[LayerShape], tokens: list[int]) -> dict[str, Tensor]:
    """Round the products of a Llama-like transformers model by what they compute of a text.

    The model's weights become those that it returns, and tied embeddings those of the head. Others
    stay as they are.

    Args:
        model: of transformers, with our attention.
        shapes: what its layers store.
        tokens: the text; it is read in windows of 512 tokens, each without what was before.

    Returns:
        For each product NAME, `NAME.weight` `[out, in]` in int8 and its `NAME.scales` `[out]`.
    """
    rounded: dict[str, Tensor] = {}
    cache = KVCache(shapes, len(tokens), torch.float32, torch.device("cpu"))
    chunks = [
        Chunk(window, 0, [Run(start, len(window))], len(window))
        for start in range(0, len(tokens), _WINDOW)
        for window in [tokens[start : start + _WINDOW]]
    ]
    with _rounding(model, rounded):
        StepModel(TransformersForward(model), cache).forward(chunks)
    if model.config.tie_word_embeddings:
        model.model.embed_tokens.weight = model.lm_head.weight
    return rounded


def install(model: Any, rounded: dict[str, Tensor]) -> None:
    """Put what `quantize` returned in the place of a model's weights; `CpuLlama` computes with it."""
    for name, weight in rounded.items():
        path, _, kind = name.rpartition(".")
        module = model.get_submodule(path)
        if kind == "weight":
            module.weight = torch.nn.Parameter(weight, requires_grad=False)
        else:
            module.register_buffer(kind, weight)


@contextmanager
def _rounding(model: Any, rounded: dict[str, Tensor]) -> Iterator[None]:
    """Round each group of products that see the same rows before the first of them is computed."""
    names = {module: name for name, module in model.named_modules()}

    def listen(modules: list[Any]) -> Any:
        def before(module: Any, arguments: tuple[Tensor, ...]) -> None:
            whole, scales = _round_group([m.weight for m in modules], arguments[0].flatten(0, -2))
            sizes = [len(m.weight) for m in modules]
            parts = zip(modules, *(torch.split(t, sizes) for t in (whole, scales)), strict=True)
            for each, weight, scale in parts:
                each.weight = torch.nn.Parameter(weight * scale[:, None], requires_grad=False)
                rounded[f"{names[each]}.weight"] = weight.to(torch.int8)
                rounded[f"{names[each]}.scales"] = scale.clone()

        return modules[0].register_forward_pre_hook(before)

    handles = [listen(modules) for modules in _groups(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _groups(model: Any) -> Iterator[list[Any]]:
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        yield [attention.q_proj, attention.k_proj, attention.v_proj]
        yield [attention.o_proj]
        yield [mlp.gate_proj, mlp.up_proj]
        yield [mlp.down_proj]
    yield [model.lm_head]


def _round_group(weights: Sequence[Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers `[out, in]` of -127 to 127 (as float32) for the stacked weights; scales `[out]`.

    Column by column; the error of each is made up for by those that are still to be rounded.
    """
    rest = torch.cat(list(weights)).float()
    scales = (rest.abs().amax(1) / _LEVELS).clamp_min(1e-30)
    whole, factors = torch.empty_like(rest), _factors(rows)
    for start in range(0, rest.shape[1], _BLOCK):
        block = slice(start, start + _BLOCK)
        errors = _round_block(rest[:, block], whole[:, block], scales, factors[block, block])
        rest[:, block.stop :] -= errors.T @ factors[block, block.stop :]
    return whole, scales


def _round_block(rest: Tensor, whole: Tensor, scales: Tensor, factors: Tensor) -> Tensor:
    """Fill `whole`; returns the errors of each column `[columns, out]`, in parts of what it weighs."""
    columns = rest.T.contiguous()
    for column, numbers in enumerate(columns):
        rounded = (numbers / scales).round().clamp_(-_LEVELS, _LEVELS)
        whole[:, column] = rounded
        numbers.sub_(rounded * scales).div_(factors[column, column])
        columns[column + 1 :].addr_(factors[column, column + 1 :], numbers, alpha=-1)
    return columns


def _factors(rows: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse of the rows' second moments."""
    moments = rows.T.float() @ rows.float()
    moments.diagonal().add_(_DAMPING * moments.diagonal().mean().clamp_min(1e-30))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
    factors: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factors
