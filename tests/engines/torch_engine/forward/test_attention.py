"""Attention over trees of sequences, against attention written out row by row."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from parrot_backend.engines.torch_engine.forward.attention import PlainAttention, Span
from parrot_backend.engines.torch_engine.forward.cpu.batch_attention import CpuAttention
from parrot_backend.engines.torch_engine.forward.sharing import cut_shared
from parrot_backend.engines.torch_engine.forward.transformers_forward import step_attention
from parrot_backend.engines.torch_engine.memory.kv_cache import KVCache, LayerShape
from parrot_backend.engines.torch_engine.memory.slots import Run, append_runs
from tests.engines.torch_engine.trees import seen_by_rows, slots_of, steps

KV_HEADS, GROUP = 2, 3
CPU = torch.device("cpu")


@st.composite
def forests(draw: st.DrawFn) -> list[list[Run]]:
    """Paths from roots to leaves through random trees whose nodes have slots of their own."""
    free = 0

    def node() -> list[Run]:
        nonlocal free
        runs: list[Run] = []
        for length in draw(st.lists(st.integers(1, 9), min_size=1, max_size=2)):
            free += draw(st.integers(0, 2))
            append_runs(runs, [Run(free, length)])
            free += length
        return runs

    def grow(path: list[Run], depth: int) -> list[list[Run]]:
        here = list(path)
        append_runs(here, node())
        children = draw(st.integers(0, 3)) if depth < 3 else 0
        return [p for _ in range(children) for p in grow(here, depth + 1)] or [here]

    return [path for _ in range(draw(st.integers(1, 2))) for path in grow([], 0)]


@given(forests())
def test_each_part_is_cut_once_and_nothing_is_lost(paths: list[list[Run]]) -> None:
    seen: list[list[int]] = [[] for _ in paths]
    parts = cut_shared(paths)
    for runs, members in parts:
        for member in members:
            seen[member] += slots_of(runs)
    assert seen == list(map(slots_of, paths))
    cut = [slot for runs, _ in parts for slot in slots_of(runs)]
    assert len(cut) == len(set(cut)), "a slot is read once, however many see it"


def naive(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """One row `[heads, dim]` over all of `[kv_heads, L, dim]`, in double precision."""
    keys, values = (t.double().repeat_interleave(GROUP, 0) for t in (keys, values))
    weights = (torch.einsum("hd,hld->hl", query.double(), keys) * scale).softmax(-1)
    return torch.einsum("hl,hld->hd", weights, values).float()


def random_step(
    spans: list[Span], dims: tuple[int, int], dtype: torch.dtype = torch.float32
) -> tuple[KVCache, tuple[Tensor, Tensor, Tensor]]:
    """A cache, NaN wherever the step has no business, and the query, key and value of its rows."""
    generator = torch.Generator().manual_seed(len(spans))
    used = torch.tensor(sorted({slot for span in spans for slot in slots_of(span.runs)}))
    cache = KVCache([LayerShape(KV_HEADS, *dims)], int(used[-1]) + 1, dtype, CPU)
    for stored in (cache.keys[0], cache.values[0]):
        stored.fill_(torch.nan)
        numbers = torch.randn(KV_HEADS, len(used), stored.shape[2], generator=generator)
        stored[:, used] = numbers.to(dtype)
    rows, (key_dim, value_dim) = sum(span.count for span in spans), dims
    shapes = [(KV_HEADS * GROUP, key_dim), (KV_HEADS, key_dim), (KV_HEADS, value_dim)]
    query, key, value = (torch.randn(rows, *shape, generator=generator) for shape in shapes)
    return cache, (query, key.to(dtype), value.to(dtype))


@pytest.mark.parametrize(
    ("kind", "dims"),
    [
        (CpuAttention, (16, 16)),
        (CpuAttention, (24, 32)),
        (CpuAttention, (64, 48)),
        (PlainAttention, (8, 8)),
        (PlainAttention, (8, 4)),
    ],
)
@settings(deadline=None, max_examples=40)
@given(steps(longest=40, most_rows=20))
def test_it_is_attention(kind: type, dims: tuple[int, int], spans: list[Span]) -> None:
    cache, (query, key, value) = random_step(spans, dims)
    attention = step_attention(cache, spans)
    assert isinstance(attention, kind)
    got = attention.attend(0, query, key, value, 0.3)
    for row, seen in enumerate(seen_by_rows(spans)):
        expected = naive(query[row], cache.keys[0][:, seen], cache.values[0][:, seen], 0.3)
        torch.testing.assert_close(got[row], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@settings(deadline=None, max_examples=40)
@given(steps(longest=90, most_rows=40), st.data())
def test_a_row_is_the_same_bits_whatever_is_beside_it(
    dtype: torch.dtype, spans: list[Span], data: st.DataObject
) -> None:
    """All sequences in one step; one alone; its rows in two steps, in which it is a longer chunk."""
    cache, (query, key, value) = random_step(spans, (16, 16), dtype)
    together = CpuAttention(cache, spans).attend(0, query, key, value, None)
    which = data.draw(st.integers(0, len(spans) - 1))
    first = sum(span.count for span in spans[:which])
    span = spans[which]
    cut = data.draw(st.integers(0, span.count - 1))
    for start, stop in ((0, span.count), (cut, span.count), (0, cut)):
        rows = slice(first + start, first + stop)
        part = Span(span.start + start, stop - start, _beginning(span.runs, span.start + stop))
        if part.count:
            alone = CpuAttention(cache, [part]).attend(0, query[rows], key[rows], value[rows], None)
            assert torch.equal(alone, together[rows])


def _beginning(runs: list[Run], tokens: int) -> list[Run]:
    beginning: list[Run] = []
    for start, length in runs:
        append_runs(beginning, [Run(start, min(length, tokens))] if tokens else [])
        tokens -= min(length, tokens)
    return beginning


def test_halves_are_read_as_what_they_are() -> None:
    spans = [Span(30, 3, [Run(4, 33)]), Span(30, 1, [Run(4, 30), Run(50, 1)])]
    cache, (query, key, value) = random_step(spans, (16, 16), torch.float16)
    got = CpuAttention(cache, spans).attend(0, query, key, value, None)
    for row, seen in enumerate(seen_by_rows(spans)):
        keys, values = (t[0][:, seen].float() for t in (cache.keys, cache.values))
        torch.testing.assert_close(got[row], naive(query[row], keys, values, 16**-0.5))


@pytest.mark.parametrize("kind", [CpuAttention, PlainAttention])
def test_scores_may_be_further_apart_than_a_float_holds(kind: type) -> None:
    spans = [Span(99, 1, [Run(0, 100)])]
    cache, (query, key, value) = random_step(spans, (16, 16))
    cache.keys[0][:, 20:60] *= 300
    got = kind(cache, spans).attend(0, query, key, value, 1.0)
    expected = naive(query[0], cache.keys[0][:, :100], cache.values[0][:, :100], 1.0)
    torch.testing.assert_close(got[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [CpuAttention, PlainAttention])
def test_what_is_not_a_number_stays_with_its_sequence(kind: type) -> None:
    spans = [Span(9, 3, [Run(0, 12)]), Span(9, 1, [Run(0, 9), Run(20, 1)])]
    cache, (query, key, value) = random_step(spans, (16, 16))
    key[3] = torch.nan
    got = kind(cache, spans).attend(0, query, key, value, None)
    assert got[:3].isfinite().all()
    assert got[3].isnan().all()
