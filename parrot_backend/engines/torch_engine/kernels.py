"""Dense attention that also gives its log-sum-exp, and the exact merge of two such results."""

import torch
from torch import Tensor


def attention_with_lse(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, *, is_causal: bool = False
) -> tuple[Tensor, Tensor]:
    """Attention of `query` `[B, heads, Q, key_dim]` over `key`, `value` `[B, heads, L, dim]`.

    Returns:
        Output `[B, heads, Q, value_dim]`, and the log-sum-exp of the scaled scores `[B, heads, Q]`.
    """
    if query.device.type == "cpu" and query.shape[-1] == value.shape[-1]:
        output, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, is_causal, scale=scaling
        )
        return output, lse
    return reference_attention(query, key, value, scaling, is_causal=is_causal)


def reference_attention(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, *, is_causal: bool = False
) -> tuple[Tensor, Tensor]:
    """`attention_with_lse`, written out; for any device and any dims."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = (query @ key.transpose(-1, -2)).float() * scale
    if is_causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~seen, -torch.inf)
    lse = scores.logsumexp(-1)
    weights = (scores - lse[..., None]).exp().to(value.dtype)
    return weights @ value, lse


def merge(
    output: Tensor, lse: Tensor, rows: slice | Tensor, more: Tensor, more_lse: Tensor
) -> None:
    """Merge the result over further keys into that of `rows`, in place.

    Args:
        output: `[T, ..., dim]`, weighted by the keys seen so far.
        lse: `[T, ...]`, log-sum-exp of their scores.
        rows: those that `more` `[R, ..., dim]` and `more_lse` `[R, ...]` belong to.
    """
    before = lse[rows]
    weight = (more_lse - before).sigmoid()
    output[rows] = output[rows].lerp(more, weight[..., None].to(output.dtype))
    lse[rows] = torch.logaddexp(before, more_lse)
