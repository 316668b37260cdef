"""Triton's attention over trees of sequences, against attention written out row by row.

`test_triton_attention.py` runs these, in Triton's interpreter on the CPU and on a CUDA device. Triton
decides for one of the two when it is imported, so they have a process of their own.
"""

import os

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from parrot_backend.engines.torch_engine import llama
from parrot_backend.engines.torch_engine.attention import (
    PlainAttention,
    Span,
    reference_attention,
)
from parrot_backend.engines.torch_engine.kv_cache import KVCache, LayerShape
from parrot_backend.engines.torch_engine.loader import LoadedModel, load_model
from parrot_backend.engines.torch_engine.model import Chunk, StepModel
from parrot_backend.engines.torch_engine.slots import Run
from parrot_backend.engines.torch_engine.triton_attention import TritonAttention
from tests.engines.torch_engine.trees import seen_by_rows, slots_of, steps

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
# The interpreter computes products of bfloat16 with the wrong numbers.
DTYPES = [torch.float32, torch.float16] if INTERPRETED else list(TOLERANCE)

SHARED, INNER = Run(3, 40), Run(50, 20)
TREES = {
    "one row": [Span(4, 1, [Run(2, 5)])],
    "first token": [Span(0, 1, [Run(7, 1)])],
    "no sharing": [Span(9, 1, [Run(10 * i, 10)]) for i in range(3)],
    "one level": [Span(40 + i, 1, [SHARED, Run(60 + 10 * i, i + 1)]) for i in range(3)],
    "only the own token is not shared": [Span(40, 1, [SHARED, Run(60 + i, 1)]) for i in range(3)],
    "nested": [
        Span(62, 1, [SHARED, INNER, Run(80, 3)]),
        Span(60, 1, [SHARED, INNER, Run(90, 1)]),
        Span(44, 1, [SHARED, Run(100, 5)]),
    ],
    "a prompt": [Span(0, 9, [Run(5, 9)])],
    "a prompt in several runs": [Span(4, 7, [Run(20, 5), Run(5, 2), Run(30, 4)])],
    "prompts among decoding rows": [
        Span(41, 1, [SHARED, Run(60, 2)]),
        Span(40, 6, [SHARED, Run(70, 6)]),
        Span(0, 3, [Run(80, 3)]),
        Span(12, 1, [Run(90, 13)]),
    ],
    "many short runs": [
        Span(32, 1, [*(Run(7 * i, 3) for i in range(10)), Run(80 + 10 * j, 3)]) for j in range(2)
    ],
    "a run over several splits": [Span(600, 1, [Run(8, 601)])],
    "a shared run over several splits": [
        Span(600, 1, [Run(8, 600), Run(700 + i, 1)]) for i in range(2)
    ],
    "more rows than a tile holds": [Span(300, 24, [Run(0, 300), Run(400, 24)])],
}


def step_tensors(
    spans: list[Span], kv_heads: int, group: int, dims: tuple[int, int], dtype: torch.dtype
) -> tuple[KVCache, tuple[Tensor, Tensor, Tensor]]:
    """A cache, with NaN wherever the step has no business, and the step's query, key and value."""
    generator = torch.Generator().manual_seed(0)
    slots = 1 + max(slot for span in spans for slot in slots_of(span.runs))
    cache = KVCache([LayerShape(kv_heads, *dims)], slots, dtype, DEVICE)
    used = torch.tensor(sorted({slot for span in spans for slot in slots_of(span.runs)}))
    for stored in (cache.keys[0], cache.values[0]):
        stored.fill_(torch.nan)
        numbers = torch.randn(kv_heads, len(used), stored.shape[2], generator=generator)
        stored[:, used.to(DEVICE)] = numbers.to(DEVICE, dtype)
    rows, (key_dim, value_dim) = sum(span.count for span in spans), dims
    shapes = [(kv_heads * group, key_dim), (kv_heads, key_dim), (kv_heads, value_dim)]
    query, key, value = (
        torch.randn(rows, *shape, generator=generator).to(DEVICE, dtype) for shape in shapes
    )
    return cache, (query, key, value)


def expected_rows(
    cache: KVCache, spans: list[Span], query: Tensor, scaling: float | None
) -> Tensor:
    """Each row over everything that it sees, at once."""
    rows = []
    for row, slots in enumerate(seen_by_rows(spans)):
        keys, values = (t[0][:, slots].float() for t in (cache.keys, cache.values))
        rows.append(reference_attention(query[row : row + 1].float(), keys, values, scaling))
    return torch.cat(rows)


def check(
    spans: list[Span],
    *,
    kv_heads: int = 2,
    group: int = 2,
    dims: tuple[int, int] = (16, 16),
    dtype: torch.dtype = torch.float32,
    scaling: float | None = None,
) -> None:
    cache, tensors = step_tensors(spans, kv_heads, group, dims, dtype)
    with torch.inference_mode():
        got = TritonAttention(cache, spans).attend(0, *tensors, scaling)
    assert got.dtype == dtype
    expected = expected_rows(cache, spans, tensors[0], scaling)
    torch.testing.assert_close(got.float(), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("tree", TREES)
def test_trees(tree: str) -> None:
    check(TREES[tree])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dims", [(8, 8), (24, 40), (80, 80), (128, 64)], ids=str)
def test_dims_and_types(dims: tuple[int, int], dtype: torch.dtype) -> None:
    check(TREES["prompts among decoding rows"], kv_heads=1, dims=dims, dtype=dtype, scaling=0.3)


@pytest.mark.parametrize(("kv_heads", "group"), [(3, 1), (1, 3), (1, 20)])
def test_groups_of_heads(kv_heads: int, group: int) -> None:
    check(TREES["nested"], kv_heads=kv_heads, group=group)


@settings(deadline=None, max_examples=6 if INTERPRETED else 100)
@given(steps(longest=12, most_rows=4, depth=2))
def test_any_tree(spans: list[Span]) -> None:
    check(spans, kv_heads=1)


def test_queries_may_be_views() -> None:
    """Those of transformers have the heads before the rows, and other layouts are copied."""
    spans = TREES["one level"]
    cache, (query, key, value) = step_tensors(spans, 2, 2, (16, 16), torch.float32)
    by_head = query.transpose(0, 1).contiguous().transpose(0, 1)
    by_dim = query.transpose(1, 2).contiguous().transpose(1, 2)
    attention = TritonAttention(cache, spans)
    outputs = [attention.attend(0, q, key, value, None) for q in (query, by_head, by_dim)]
    assert all(torch.equal(outputs[0], other) for other in outputs[1:])


def test_parts_that_outweigh_others_by_more_than_a_float_holds() -> None:
    """More parts than are merged at once, the heaviest among the last."""
    spans = [Span(4400, 1, [Run(0, 4401)])]
    cache, tensors = step_tensors(spans, 1, 2, (16, 16), torch.float32)
    cache.keys[0][:, 300:400] *= 20
    cache.keys[0][:, 4380:] *= 300
    got = TritonAttention(cache, spans).attend(0, *tensors, 1.0)
    expected = expected_rows(cache, spans, tensors[0], 1.0)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_what_is_not_a_number_stays_with_its_sequence() -> None:
    spans = TREES["prompts among decoding rows"]
    cache, tensors = step_tensors(spans, 1, 2, (16, 16), torch.float32)
    cache.keys[0][:, 95] = torch.nan
    got = TritonAttention(cache, spans).attend(0, *tensors, None)
    assert got[:-1].isfinite().all()
    assert got[-1].isnan().all()


def test_places_past_32_bits() -> None:
    """Of the cache's 8 GB only a few pages are touched."""
    slots = 2**24 + 64
    spans = [Span(5, 1, [Run(2**24, 6)]), Span(0, 2, [Run(slots - 2, 2)])]
    cache = KVCache([LayerShape(3, 64, 16)], slots, torch.float16, DEVICE)
    for stored in (cache.keys[0], cache.values[0]):
        stored[:, 2**24 : slots] = torch.randn(3, 64, stored.shape[2]).to(DEVICE, torch.float16)
    tensors = [torch.randn(3, 3, dim).to(DEVICE, torch.float16) for dim in (64, 64, 16)]
    got = TritonAttention(cache, spans).attend(0, *tensors, None)
    assert 2 * cache.keys[0].stride(0) >= 2**31
    expected = expected_rows(cache, spans, tensors[0], None)
    torch.testing.assert_close(got.float(), expected, rtol=2e-3, atol=2e-3)


def test_a_model_computes_the_same_with_it(tiny_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two prompts with a shared beginning, then a step in which both decode, through all layers."""
    loaded = load_model(tiny_path, str(DEVICE))
    logits = []
    for kind in (PlainAttention, TritonAttention):
        monkeypatch.setattr(llama, "step_attention", kind)
        logits.append(_decode(loaded))
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)


def _decode(loaded: LoadedModel) -> Tensor:
    cache = KVCache(loaded.shapes, 32, torch.float32, DEVICE)
    model = StepModel(llama.LlamaForward(loaded.model), cache)
    prefix = Run(4, 5)
    model.forward([Chunk([9, 8, 7, 6, 5], 0, [prefix], 0)])
    model.forward([Chunk([20, 21], 5, [Run(4, 7)], 2), Chunk([30], 5, [prefix, Run(20, 1)], 1)])
    return model.forward([Chunk([40], 7, [Run(4, 8)], 1), Chunk([50], 6, [prefix, Run(20, 2)], 1)])
