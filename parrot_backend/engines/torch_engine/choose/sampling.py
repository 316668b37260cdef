"""Choosing the next token of each sequence from its own logits, whatever its neighbours do."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from parrot_backend.engines.base import Sampling
from parrot_backend.engines.torch_engine.choose.constraints import Constraint, allowed_tokens
from parrot_backend.wire.errors import EngineError, ParrotError

# Below it softmax is one-hot in float32, and dividing by it overflows.
_COLDEST = 1e-5
# Penalties can make a large logit an infinite one, and infinities have no differences.
_LARGEST = torch.finfo(torch.float32).max
# Top-p seldom keeps more tokens than these, and finding them is faster than sorting all.
_RANKED = (256, 4096)


class Sampler:
    """One sequence's sampling parameters, random numbers and what its tokens so far change.

    Args:
        sampling: without a seed the numbers are different each time.
        device: where the logits lie; a seed gives the same numbers on the same kind of device.
        prompt: its tokens that count as repeated when they come again.
        constraint: what its text must match.
    """

    def __init__(
        self,
        sampling: Sampling,
        device: torch.device,
        *,
        prompt: Iterable[int] = (),
        constraint: Constraint | None = None,
    ) -> None:
        self.constraint = constraint
        self._sampling = sampling
        needed = Penalties.needed(sampling)
        self._penalties = Penalties(sampling, prompt, device) if needed else None
        self._greedy = sampling.temperature < _COLDEST
        if not self._greedy:
            self._generator = torch.Generator(device)
            if sampling.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(sampling.seed)

    @property
    def takes_best(self) -> bool:
        """Whether it always chooses the largest logit as it is."""
        return self._greedy and self._penalties is None and self.constraint is None

    @property
    def satisfied(self) -> bool:
        """Whether nothing can follow what the constraint has seen."""
        return self.constraint is not None and self.constraint.satisfied

    @property
    def forced(self) -> list[int]:
        """The next tokens, where the constraint leaves no choice: they are chosen unseen."""
        return self.constraint.forced if self.constraint is not None else []

    def accept(self, token: int) -> None:
        """Note that `token` is the sequence's next one.

        Raises:
            InvalidRequestError: the constraint's grammar is over a limit.
        """
        if self._penalties is not None:
            self._penalties.count(token)
        if self.constraint is not None:
            self.constraint.accept(token)

    def draw(self, logits: Tensor, allowed: Tensor | None = None) -> int:
        """A token from `logits` `[vocabulary]`, none of them NaN; one of those `allowed`, if told.

        In vLLM's order: bias and penalties, temperature, min-p, top-k, top-p. The token is drawn in
        vocabulary order, so that tiny differences between the logits of a token alone and in a
        batch, which can change the order by rank, don't change the draw.

        Raises:
            EngineError: none is allowed.
        """
        logits = logits.float()
        if self._penalties is not None:
            logits = self._penalties.apply(logits)
        if allowed is not None:
            # What is allowed is finite from here on, so that it can be told from what is not.
            logits = logits.clamp(-_LARGEST, _LARGEST).masked_fill(~allowed, -torch.inf)
        best = logits.max()
        if best == -torch.inf:
            raise EngineError("there is no token that could come next")
        if self._greedy:
            return int(logits.argmax())
        scaled = (logits - best) / self._sampling.temperature
        if self._sampling.min_p > 0:
            scaled = _keep_min_p(scaled, self._sampling.min_p)
        if 0 < self._sampling.top_k < len(scaled):
            scaled = _keep_top_k(scaled, self._sampling.top_k)
        probabilities = scaled.softmax(-1)
        if self._sampling.top_p < 1:
            probabilities = _keep_top_p(probabilities, self._sampling.top_p)
        return self._invert(probabilities)

    def _invert(self, probabilities: Tensor) -> int:
        """A token by one random number and the cumulative distribution.

        torch.multinomial draws a number for each token of the vocabulary, which takes longer.
        """
        cumulative = probabilities.double().cumsum(-1)
        number = torch.rand(
            1, generator=self._generator, dtype=torch.float64, device=probabilities.device
        )
        return int(torch.searchsorted(cumulative, number * cumulative[-1], right=True))


def _keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Keep the tokens at least `p` times as likely as the likeliest, whose logit is 0."""
    return logits.masked_fill(logits < math.log(p), -torch.inf)


def _keep_top_k(logits: Tensor, k: int) -> Tensor:
    return logits.masked_fill(logits < logits.topk(k).values[-1], -torch.inf)


def _keep_top_p(probabilities: Tensor, p: float) -> Tensor:
    """Keep the smallest set of most likely tokens whose probabilities sum to at least `p`."""
    ranked, order = _ranked(probabilities, p)
    before = ranked.cumsum(-1) - ranked
    within = before < p
    # The first is kept always: `before` can be a rounding error there, and `p` is 0 in float32 where
    # it is very small.
    within[0] = True
    kept = order[within]
    return torch.zeros_like(probabilities).index_copy(0, kept, probabilities[kept])


def _ranked(probabilities: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """The most likely tokens, which sum to `p` or are all, with their ids; the likeliest first."""
    for count in _RANKED:
        if count < len(probabilities):
            ranked, order = probabilities.topk(count)
            if ranked.sum() >= p:
                return ranked, order
    return probabilities.sort(descending=True)


class Choices:
    """What can be chosen from the logits of a step, `[rows, vocabulary]`."""

    def __init__(self, logits: Tensor) -> None:
        self._logits = logits
        self._best: list[int] = logits.argmax(-1).tolist()
        self._finite: list[bool] = logits.amax(-1).isfinite().tolist()

    def choose(self, rows: Sequence[int], samplers: Sequence[Sampler]) -> list[int | ParrotError]:
        """The next token of each sampler, which has one of `rows`, or why there is none."""
        masks = self._masks(samplers)
        return [
            self._choose(row, sampler, masks.get(sampler))
            for row, sampler in zip(rows, samplers, strict=True)
        ]

    def _choose(self, row: int, sampler: Sampler, allowed: Tensor | None) -> int | ParrotError:
        if not self._finite[row]:
            return EngineError("the model computed logits that are not finite numbers")
        if sampler.takes_best:
            return self._best[row]
        return sampler.forced[0] if sampler.forced else _draw(sampler, self._logits[row], allowed)

    def _masks(self, samplers: Sequence[Sampler]) -> dict[Sampler, Tensor]:
        """What their constraints allow, `[vocabulary]` each, where that is more than one token."""
        constraints = {s: s.constraint for s in samplers if s.constraint and not s.forced}
        if not constraints:
            return {}
        vocabulary, device = self._logits.shape[-1], self._logits.device
        allowed = allowed_tokens([*constraints.values()], vocabulary).to(device)
        return dict(zip(constraints, allowed, strict=True))


def _draw(sampler: Sampler, logits: Tensor, allowed: Tensor | None) -> int | ParrotError:
    try:
        if sampler.constraint is not None and allowed is not None:
            sampler.constraint.check()
        return sampler.draw(logits, allowed)
    except ParrotError as error:
        return error
    except Exception as error:
        return EngineError(f"sampling failed: {error}")


class Penalties:
    """The logit changes of one sequence, by its request and its tokens so far.

    The bias and the presence and frequency penalties are OpenAI's formula; the repetition penalty is
    CTRL's (arXiv 1909.05858, section 4.1), over prompt and answer as in transformers and vLLM.

    Args:
        sampling: the biases and penalties.
        prompt: the tokens that are held from the start.
        device: where the logits lie.
    """

    def __init__(self, sampling: Sampling, prompt: Iterable[int], device: torch.device) -> None:
        self._sampling = sampling
        self._held = set(prompt) if sampling.repetition_penalty != 1 else set()
        # Kept, as a long prompt's would take longer to make than all else that a draw does.
        self._held_index = torch.tensor([*self._held], dtype=torch.long, device=device)
        self._generated: dict[int, int] = {}

    @staticmethod
    def needed(sampling: Sampling) -> bool:
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
        if self._sampling.repetition_penalty != 1 and token not in self._held:
            self._held.add(token)
            self._held_index = torch.cat((self._held_index, self._held_index.new_tensor([token])))

    def apply(self, logits: Tensor) -> Tensor:
        """`logits` `[vocabulary]` with every change, none of them infinite; the argument stays."""
        changed = logits.clone()
        if self._sampling.logit_bias:
            _add(changed, self._sampling.logit_bias.keys(), self._sampling.logit_bias.values())
        if self._held:
            self._divide(changed)
        if self._generated and self._penalizes_generated:
            _add(changed, self._generated, map(self._penalty, self._generated.values()))
        return changed.clamp_(-_LARGEST, _LARGEST)

    @property
    def _penalizes_generated(self) -> bool:
        return bool(self._sampling.presence_penalty or self._sampling.frequency_penalty)

    def _penalty(self, count: int) -> float:
        return -self._sampling.presence_penalty - count * self._sampling.frequency_penalty

    def _divide(self, logits: Tensor) -> None:
        """Make every held token less likely, on either side of zero."""
        held, penalty = self._held_index, self._sampling.repetition_penalty
        values = logits[held]
        logits[held] = torch.where(values > 0, values / penalty, values * penalty)


def _add(logits: Tensor, tokens: Iterable[int], values: Iterable[float]) -> None:
    index = torch.tensor(list(tokens), device=logits.device)
    logits[index] += torch.tensor(list(values), dtype=logits.dtype, device=logits.device)
