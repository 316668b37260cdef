"""What a Llama layer computes apart from attention, in the type that the weights are stored in."""

from typing import Protocol

from torch import Tensor
from torch.nn import functional

from parrot_backend.engines.torch_engine.layer_weights import LayerWeights
from parrot_backend.engines.torch_engine.linear import linear


class Projections(Protocol):
    """One layer's products, for the hidden states `[T, hidden]` of T rows."""

    def qkv(self, hidden: Tensor) -> Tensor:
        """Queries, keys and values of the normalized hidden states, `[T, heads * dim]`."""
        ...

    def out(self, attended: Tensor, hidden: Tensor) -> Tensor:
        """`hidden` plus the projection of what was attended `[T, query heads * dim]`."""
        ...

    def mlp(self, hidden: Tensor) -> Tensor:
        """`hidden` plus the gated MLP of its normalization."""
        ...


class FloatProjections:
    """Norm weights are folded into the products behind them; SiLU, gate and residual happen in them."""

    def __init__(self, weights: LayerWeights, eps: float) -> None:
        self._eps = eps
        self._qkv = linear(weights.qkv.weight * weights.before, weights.qkv.bias)
        self._out = linear(*weights.out)
        self._gate = linear(weights.gate.weight * weights.between, weights.gate.bias)
        self._up = linear(weights.up.weight * weights.between, weights.up.bias)
        self._down = linear(*weights.down)

    def qkv(self, hidden: Tensor) -> Tensor:
        """See `Projections`."""
        return self._qkv(normalized(hidden, self._eps))

    def out(self, attended: Tensor, hidden: Tensor) -> Tensor:
        """See `Projections`."""
        return self._out.add(attended, hidden)

    def mlp(self, hidden: Tensor) -> Tensor:
        """See `Projections`."""
        rows = normalized(hidden, self._eps)
        return self._down.add(self._up.mul(rows, self._gate.silu(rows)), hidden)


def normalized(hidden: Tensor, eps: float) -> Tensor:
    """RMS norm of each row, without a weight."""
    return functional.rms_norm(hidden, hidden.shape[-1:], eps=eps)
