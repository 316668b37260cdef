"""The Triton kernels of attention over tiles: each tile's part of the result, and the exact merge."""

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def attend_tile(
    query: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    tiles: tl.tensor,
    runs: tl.tensor,
    entries: tl.tensor,
    parts: tl.tensor,
    lses: tl.tensor,
    scale: tl.tensor,
    query_row: tl.tensor,
    query_head: tl.tensor,
    keys_head: tl.tensor,
    values_head: tl.tensor,
    group: tl.constexpr,
    key_dim: tl.constexpr,
    value_dim: tl.constexpr,
    row_block: tl.constexpr,
    slot_block: tl.constexpr,
    key_block: tl.constexpr,
    value_block: tl.constexpr,
) -> None:
    """One tile and one key head, for the `group` query heads that read it; grid `(tiles, kv_heads)`.

    Args:
        query: `[T, kv_heads * group, key_dim]`, with `query_row` and `query_head` as strides.
        keys: `[kv_heads, slots, key_dim]`, with `keys_head` as its first stride.
        values: `[kv_heads, slots, value_dim]`, with `values_head` as its first stride.
        tiles: see `Tiles`, as `runs` and `entries`.
        parts: output, float32 `[parts, kv_heads * group, value_dim]`.
        lses: output, float32 `[parts, kv_heads * group]`, log-sum-exp of the scores in base 2.
        scale: of the scores, times log2(e).
        row_block: rows times heads of the group that a tile has room for.
        slot_block: slots that are read at once.
        key_block: a power of two, at least `key_dim`; so `value_block`.
    """
    # 64 bits: a head's keys alone may be more than 2**31 numbers.
    head = tl.program_id(1).to(tl.int64)
    tiles += tl.program_id(0).to(tl.int64) * 4
    first_run = tl.load(tiles)
    run_count = tl.load(tiles + 1)
    entries += tl.load(tiles + 2) * 3
    member = tl.arange(0, row_block)
    inside = member // group < tl.load(tiles + 3)
    entries += (member // group) * 3
    row = tl.load(entries, mask=inside, other=0)
    seen = tl.load(entries + 1, mask=inside, other=1)
    part = tl.load(entries + 2, mask=inside, other=0)
    query_heads = head * group + member % group
    dim = tl.arange(0, key_block)
    value_column = tl.arange(0, value_block)
    q = tl.load(
        query + (row * query_row + query_heads * query_head)[:, None] + dim[None, :],
        mask=inside[:, None] & (dim < key_dim)[None, :],
        other=0.0,
    )
    keys += head * keys_head
    values += head * values_head
    before = tl.zeros((), tl.int64)
    best = tl.full((row_block,), float("-inf"), tl.float32)
    total = tl.zeros((row_block,), tl.float32)
    output = tl.zeros((row_block, value_block), tl.float32)
    for run in range(first_run, first_run + run_count):
        slot = tl.load(runs + run * 2)
        length = tl.load(runs + run * 2 + 1)
        for start in range(0, length, slot_block):
            at = start + tl.arange(0, slot_block)
            k = tl.load(
                keys + (slot + at)[None, :] * key_dim + dim[:, None],
                mask=(at < length)[None, :] & (dim < key_dim)[:, None],
                other=0.0,
            )
            # Not TF32, which keeps 10 bits of a float32.
            scores = tl.dot(q, k, input_precision="ieee") * scale
            visible = (at < length)[None, :] & ((before + at)[None, :] < seen[:, None])
            scores = tl.where(visible, scores, float("-inf"))
            # Finite from the first block on, as every row sees the tile's first slot.
            new = tl.maximum(best, tl.max(scores, 1))
            kept = tl.exp2(best - new)
            weights = tl.exp2(scores - new[:, None])
            v = tl.load(
                values + (slot + at)[:, None] * value_dim + value_column[None, :],
                mask=(at < length)[:, None] & (value_column < value_dim)[None, :],
                other=0.0,
            )
            output = output * kept[:, None]
            output += tl.dot(weights.to(v.dtype), v, input_precision="ieee")
            total = total * kept + tl.sum(weights, 1)
            best = new
        before += length
    part = part * (tl.num_programs(1) * group) + query_heads
    tl.store(lses + part, best + tl.log2(total), mask=inside)
    tl.store(
        parts + part[:, None] * value_dim + value_column[None, :],
        output / total[:, None],
        mask=inside[:, None] & (value_column < value_dim)[None, :],
    )


@triton.jit  # type: ignore[untyped-decorator]
def merge_parts(
    parts: tl.tensor,
    lses: tl.tensor,
    bounds: tl.tensor,
    output: tl.tensor,
    value_dim: tl.constexpr,
    value_block: tl.constexpr,
    part_block: tl.constexpr,
) -> None:
    """The result of one row and head from its parts, by their log-sum-exp; grid `(T, heads)`.

    Args:
        parts: float32 `[parts, heads, value_dim]`.
        lses: float32 `[parts, heads]`, in base 2.
        bounds: see `Tiles`.
        output: `[T, heads, value_dim]`, contiguous.
        value_block: a power of two, at least `value_dim`.
        part_block: parts that are read at once.
    """
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    heads = tl.num_programs(1)
    first = tl.load(bounds + row)
    last = tl.load(bounds + row + 1)
    column = tl.arange(0, value_block)
    best = tl.full((), float("-inf"), tl.float32)
    total = tl.full((), 0.0, tl.float32)
    merged = tl.zeros((value_block,), tl.float32)
    for start in range(first, last, part_block):
        at = start + tl.arange(0, part_block)
        lse = tl.load(lses + at * heads + head, mask=at < last, other=float("-inf"))
        new = tl.maximum(best, tl.max(lse, 0))
        kept = tl.exp2(best - new)
        weights = tl.exp2(lse - new)
        several = tl.load(
            parts + ((at * heads + head) * value_dim)[:, None] + column[None, :],
            mask=(at < last)[:, None] & (column < value_dim)[None, :],
            other=0.0,
        )
        merged = merged * kept + tl.sum(weights[:, None] * several, 0)
        total = total * kept + tl.sum(weights, 0)
        best = new
    tl.store(
        output + (row * heads + head) * value_dim + column,
        (merged / total).to(output.dtype.element_ty),
        mask=column < value_dim,
    )
