"""Attention over trees of sequences, against attention written out row by row."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from parrot_backend.engines.torch_engine import attention
from parrot_backend.engines.torch_engine.attention import Span, TreeAttention
from parrot_backend.engines.torch_engine.kernels import (
    attention_with_lse,
    merge,
    reference_attention,
)
from parrot_backend.engines.torch_engine.kv_cache import KVCache, LayerShape
from parrot_backend.engines.torch_engine.linear import linear
from parrot_backend.engines.torch_engine.sharing import cut_shared
from parrot_backend.engines.torch_engine.slots import Run, append_runs, count_slots, split_runs

KV_HEADS, GROUP = 2, 3


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


def slots_of(runs: list[Run]) -> list[int]:
    return [slot for start, length in runs for slot in range(start, start + length)]


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


@pytest.mark.parametrize("worth_a_product", [0, 12, 10**9])
@pytest.mark.parametrize("few_rows", [1, 4])
@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(forests(), st.data(), st.sampled_from([(8, 8), (8, 4)]))
def test_tree_attention_is_attention(
    monkeypatch: pytest.MonkeyPatch,
    worth_a_product: int,
    few_rows: int,
    paths: list[list[Run]],
    data: st.DataObject,
    dims: tuple[int, int],
) -> None:
    """Each leaf is a sequence; its last tokens, which only it has, are the step's rows."""
    monkeypatch.setattr(attention, "_WORTH_A_PRODUCT", worth_a_product)
    monkeypatch.setattr(attention, "_FEW_ROWS", few_rows)
    own = [0] * len(paths)
    for runs, members in cut_shared(paths):
        if len(members) == 1:
            own[members[0]] += count_slots(runs)
    counts = [data.draw(st.integers(1, n)) if n else 0 for n in own]
    spans = [
        Span(count_slots(path) - count, count, path)
        for path, count in zip(paths, counts, strict=True)
        if count
    ]
    key_dim, value_dim = dims
    generator = torch.Generator().manual_seed(len(paths))
    slots = 1 + max(slot for path in paths for slot in slots_of(path))
    shape = LayerShape(KV_HEADS, key_dim, value_dim)
    cache = KVCache([shape], slots, torch.float32, torch.device("cpu"))
    cache.keys[0].normal_(generator=generator)
    cache.values[0].normal_(generator=generator)
    rows = sum(span.count for span in spans)
    query = torch.randn(rows, KV_HEADS * GROUP, key_dim, generator=generator)
    key = torch.randn(rows, KV_HEADS, key_dim, generator=generator)
    value = torch.randn(rows, KV_HEADS, value_dim, generator=generator)
    got = TreeAttention(cache, spans).attend(0, query, key, value, 0.3)
    row = 0
    for span in spans:
        for offset in range(span.count):
            seen = slots_of(split_runs(span.runs, span.start + offset + 1)[0])
            expected = naive(query[row], cache.keys[0][:, seen], cache.values[0][:, seen], 0.3)
            torch.testing.assert_close(got[row], expected, rtol=1e-4, atol=1e-5)
            row += 1


@pytest.mark.parametrize("causal", [False, True])
def test_the_fast_kernel_is_the_reference(causal: bool) -> None:
    query, key, value = (torch.randn(2, 3, 17, 8) for _ in range(3))
    fast = attention_with_lse(query, key, value, None, is_causal=causal)
    for got, expected in zip(
        fast, reference_attention(query, key, value, None, is_causal=causal), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@given(st.integers(1, 30), st.floats(-200, 200))
def test_merging_parts_is_attending_to_all(cut: int, shift: float) -> None:
    """Also where one part outweighs the other by more than a float can hold."""
    generator = torch.Generator().manual_seed(cut)
    query = torch.randn(1, 1, 2, 8, generator=generator)
    key, value = (torch.randn(1, 1, 31, 8, generator=generator) for _ in range(2))
    key[..., :cut, :] += shift
    whole, _ = reference_attention(query, key, value, 1.0)
    output, lse = reference_attention(query, key[..., :cut, :], value[..., :cut, :], 1.0)
    more = reference_attention(query, key[..., cut:, :], value[..., cut:, :], 1.0)
    merge(output, lse, slice(None), *more)
    torch.testing.assert_close(output, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 3, 70])
@pytest.mark.parametrize("biased", [False, True])
def test_packed_linears_are_linears(rows: int, biased: bool) -> None:
    weight, x, other = torch.randn(40, 24), torch.randn(rows, 24), torch.randn(rows, 40)
    bias = torch.randn(40) if biased else None
    packed = linear(weight, bias)
    expected = torch.nn.functional.linear(x, weight, bias)
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(packed(x), expected, **close)
    torch.testing.assert_close(packed.add(x, other), expected + other, **close)
    torch.testing.assert_close(packed.mul(x, other), expected * other, **close)
    torch.testing.assert_close(packed.silu(x), torch.nn.functional.silu(expected), **close)
