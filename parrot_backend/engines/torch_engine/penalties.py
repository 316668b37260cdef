"""What a request adds to its own logits: a bias per token, and penalties for tokens it holds."""

from collections.abc import Iterable

import torch
from torch import Tensor

from parrot_backend.engines.base import Sampling


class Penalties:
    """The logit changes of one sequence, by its request and its tokens so far.

    The bias and the presence and frequency penalties are OpenAI's formula; the repetition penalty is
    CTRL's (arXiv 1909.05858, section 4.1), over prompt and answer as in transformers and vLLM.

    Args:
        sampling: the biases and penalties.
        prompt: the prompt's tokens.
    """

    def __init__(self, sampling: Sampling, prompt: Iterable[int]) -> None:
        self._sampling = sampling
        self._held = set(prompt) if sampling.repetition_penalty != 1 else set()
        self._generated: dict[int, int] = {}

    @staticmethod
    def wanted(sampling: Sampling) -> bool:
        """Whether `sampling` has any effect here."""
        return bool(
            sampling.logit_bias
            or sampling.presence_penalty
            or sampling.frequency_penalty
            or sampling.repetition_penalty != 1
        )

    def count(self, token: int) -> None:
        """Note that `token` was generated."""
        self._generated[token] = self._generated.get(token, 0) + 1
        if self._sampling.repetition_penalty != 1:
            self._held.add(token)

    def apply(self, logits: Tensor) -> Tensor:
        """`logits` `[vocabulary]` with every change; the argument stays as it is."""
        changed = logits.clone()
        if self._sampling.logit_bias:
            _add(changed, self._sampling.logit_bias.keys(), self._sampling.logit_bias.values())
        if self._held:
            self._divide(changed)
        if self._generated and self._penalizes_generated:
            _add(changed, self._generated, map(self._penalty, self._generated.values()))
        return changed

    @property
    def _penalizes_generated(self) -> bool:
        return bool(self._sampling.presence_penalty or self._sampling.frequency_penalty)

    def _penalty(self, count: int) -> float:
        return -self._sampling.presence_penalty - count * self._sampling.frequency_penalty

    def _divide(self, logits: Tensor) -> None:
        """Make every held token less likely, on either side of zero."""
        held = torch.tensor(list(self._held), device=logits.device)
        values, penalty = logits[held], self._sampling.repetition_penalty
        logits[held] = torch.where(values > 0, values / penalty, values * penalty)


def _add(logits: Tensor, tokens: Iterable[int], values: Iterable[float]) -> None:
    index = torch.tensor(list(tokens), device=logits.device)
    logits[index] += torch.tensor(list(values), dtype=logits.dtype, device=logits.device)
