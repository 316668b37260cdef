"""The compiled drawing against its definition: softmax, what is kept, and the cumulative sum."""

import itertools
import random

import pytest
import torch

from parrot_backend.engines.torch_engine.choose.drawing import Draw, draw


def defined(logits: torch.Tensor, how: Draw) -> int:
    """As vLLM and transformers describe it, in float64."""
    scaled = (logits.double() - logits.max()) / how.temperature
    scaled = scaled.masked_fill(scaled < torch.tensor(how.min_p).log(), -torch.inf)
    if 0 < how.top_k < len(scaled):
        scaled = scaled.masked_fill(scaled < scaled.topk(how.top_k).values[-1], -torch.inf)
    probabilities = scaled.softmax(-1)
    if how.top_p < 1:
        ranked, order = probabilities.sort(descending=True, stable=True)
        kept = order[ranked.cumsum(-1) - ranked < how.top_p]
        probabilities = torch.zeros_like(probabilities).index_copy(0, kept, probabilities[kept])
    cumulative = probabilities.cumsum(-1)
    return int(torch.searchsorted(cumulative, how.number * cumulative[-1], right=True))


WAYS = [
    dict(zip(("temperature", "min_p", "top_k", "top_p"), values, strict=True))
    for values in itertools.product((0.2, 1.0, 1.9), (0.0, 0.05), (0, 40, 700), (1.0, 0.9, 0.999))
]


@pytest.mark.parametrize("size", [3, 511, 512, 513, 49_152])
@pytest.mark.parametrize("scale", [0.01, 3.0, 40.0])
def test_the_same_tokens_as_defined(size: int, scale: float) -> None:
    """Flat, as of a model and steep; but for numbers that fall on the border of two tokens."""
    generator, chance = torch.Generator().manual_seed(size), random.Random(size)
    logits = torch.randn(8, size, generator=generator) * scale
    draws = [Draw(chance.randrange(8), **way, number=chance.random()) for way in WAYS * 2]
    tokens = draw(logits, draws)
    expected = [defined(logits[each.row], each) for each in draws]
    differing = [
        (each, token)
        for each, token, wanted in zip(draws, tokens, expected, strict=True)
        if token != wanted
    ]
    assert len(differing) <= 1, differing


def test_rows_that_are_longer_than_their_vocabulary() -> None:
    logits = torch.tensor([[0.0, 9.0, 50.0, 50.0], [9.0, 0.0, 50.0, 50.0]])[:, :2]
    assert draw(logits, [Draw(row, 1.0, 0.0, 0, 1.0, 0.5) for row in (0, 1)]) == [1, 0]


def test_of_equal_ones_top_p_keeps_the_first() -> None:
    flat = torch.zeros(1, 1000)
    drawn = {draw(flat, [Draw(0, 1.0, 0.0, 0, 0.25, n / 1000)])[0] for n in range(1000)}
    assert drawn == set(range(250))


def test_each_token_comes_as_often_as_it_is_likely() -> None:
    logits = torch.tensor([[0.5, 0.2, 0.15, 0.1, 0.05]]).log()
    draws = [Draw(0, 1.0, 0.0, 0, 1.0, (n + 0.5) / 1000) for n in range(1000)]
    tokens = draw(logits, draws)
    assert [tokens.count(token) for token in range(5)] == [500, 200, 150, 100, 50]
