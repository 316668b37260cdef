"""Choosing the next token of each sequence from its own logits, whatever its neighbours do."""

from collections.abc import Sequence

import torch
from torch import Tensor

from parrot_backend.engines.base import Sampling
from parrot_backend.errors import EngineError

# Below it softmax is one-hot in float32, and dividing by it overflows.
_COLDEST = 1e-5


class Sampler:
    """One sequence's sampling parameters and random numbers.

    Args:
        sampling: without a seed the numbers are different each time.
        device: where the logits lie; a seed gives the same numbers on the same kind of device.
    """

    def __init__(self, sampling: Sampling, device: torch.device) -> None:
        self._sampling = sampling
        self.greedy = sampling.temperature < _COLDEST
        if not self.greedy:
            self._generator = torch.Generator(device)
            if sampling.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(sampling.seed)

    def draw(self, logits: Tensor) -> int:
        """A token from `logits` `[vocabulary]`: temperature, then top-k, then top-p.

        The token is drawn in vocabulary order, so that tiny differences between the logits of a
        token alone and in a batch, which can change the order by rank, don't change the draw.
        """
        logits = logits.float()
        scaled = (logits - logits.max()) / self._sampling.temperature
        if 0 < self._sampling.top_k < len(scaled):
            scaled = _keep_top_k(scaled, self._sampling.top_k)
        probabilities = scaled.softmax(-1)
        if self._sampling.top_p < 1:
            probabilities = _keep_top_p(probabilities, self._sampling.top_p)
        return int(torch.multinomial(probabilities, 1, generator=self._generator))


def _keep_top_k(logits: Tensor, k: int) -> Tensor:
    return logits.masked_fill(logits < logits.topk(k).values[-1], -torch.inf)


def _keep_top_p(probabilities: Tensor, p: float) -> Tensor:
    """Keep the smallest set of most likely tokens whose probabilities sum to at least `p`."""
    ranked, order = probabilities.sort(descending=True)
    before = ranked.cumsum(-1) - ranked
    # The first is kept always: there `before` is 0, or a rounding error.
    before[0] = 0
    return probabilities.index_fill(0, order[before >= p], 0)


def choose_tokens(logits: Tensor, samplers: Sequence[Sampler]) -> list[int | EngineError]:
    """The next token of each row of `logits` `[rows, vocabulary]`, or why there is none."""
    best = logits.argmax(-1).tolist()
    finite = logits.amax(-1).isfinite().tolist()
    chosen: list[int | EngineError] = []
    for row, sampler in enumerate(samplers):
        if not finite[row]:
            chosen.append(EngineError("the model computed logits that are not finite numbers"))
        elif sampler.greedy:
            chosen.append(best[row])
        else:
            chosen.append(_draw(sampler, logits[row]))
    return chosen


def _draw(sampler: Sampler, logits: Tensor) -> int | EngineError:
    try:
        return sampler.draw(logits)
    except Exception as error:
        return EngineError(f"sampling failed: {error}")
