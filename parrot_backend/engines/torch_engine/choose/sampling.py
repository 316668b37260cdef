"""Choosing the next token of each sequence from its own logits, whatever its neighbours do."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from parrot_backend.engines.base import Sampling
from parrot_backend.engines.torch_engine.choose.constraints import Constraint, allowed_tokens
from parrot_backend.engines.torch_engine.choose.drawing import Draw, draw
from parrot_backend.wire.errors import EngineError, ParrotError

# Below it softmax is one-hot in float32, and dividing by it overflows.
_COLDEST = 1e-5
# Penalties can make a large logit an infinite one, and infinities have no differences.
_LARGEST = torch.finfo(torch.float32).max


class Sampler:
    """One sequence's sampling parameters, random numbers and what its tokens so far change.

    It is `greedy` where it chooses the largest logit, once its `penalties` are in them.

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
        self.penalties = Penalties(sampling, prompt, device) if needed else None
        self.greedy = sampling.temperature < _COLDEST
        if not self.greedy:
            self._generator = torch.Generator(device)
            if sampling.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(sampling.seed)

    @property
    def takes_best(self) -> bool:
        """Whether it always chooses the largest logit as it is."""
        return self.greedy and self.penalties is None and self.constraint is None

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
        if self.penalties is not None:
            self.penalties.count(token)
        if self.constraint is not None:
            self.constraint.accept(token)

    def next_draw(self, row: int) -> Draw:
        """How its next token is drawn, from row number `row`; for one that is not greedy."""
        sampling = self._sampling
        # Of one random number: torch.multinomial draws one for each token of the vocabulary.
        number = torch.rand((), generator=self._generator, dtype=torch.float64).item()
        return Draw(
            row,
            sampling.temperature,
            max(0.0, sampling.min_p),
            max(0, sampling.top_k),
            sampling.top_p,
            number,
        )


class Choices:
    """What can be chosen from the logits of a step, `[rows, vocabulary]`."""

    def __init__(self, logits: Tensor) -> None:
        self._logits = logits.float()
        best = logits.argmax(-1, keepdim=True)
        self._best: list[int] = best.flatten().tolist()
        self._finite: list[bool] = logits.gather(-1, best).isfinite().flatten().tolist()

    def choose(self, rows: Sequence[int], samplers: Sequence[Sampler]) -> list[int | ParrotError]:
        """The next token of each sampler, which has one of `rows`, or why there is none."""
        masks = self._masks(samplers)
        chosen: list[int | ParrotError] = []
        draws: dict[int, Draw] = {}
        with ExitStack() as changes:
            for place, (row, sampler) in enumerate(zip(rows, samplers, strict=True)):
                choice = self._choose(row, sampler, masks.get(sampler), changes)
                if isinstance(choice, Draw):
                    draws[place] = choice
                chosen.append(0 if isinstance(choice, Draw) else choice)
            tokens = draw(self._logits, [*draws.values()]) if draws else []
        for place, token in zip(draws, tokens, strict=True):
            chosen[place] = token
        return chosen

    def _choose(
        self, row: int, sampler: Sampler, allowed: Tensor | None, changes: ExitStack
    ) -> int | Draw | ParrotError:
        """What it chooses, or how it draws from its logits as they are until `changes` end."""
        if not self._finite[row]:
            return EngineError("the model computed logits that are not finite numbers")
        if sampler.takes_best:
            return self._best[row]
        if sampler.forced:
            return sampler.forced[0]
        try:
            if sampler.constraint is not None and allowed is not None:
                sampler.constraint.check()
            changes.enter_context(_changed(self._logits[row], sampler.penalties, allowed))
            if sampler.greedy or allowed is not None:
                best = int(self._logits[row].argmax())
                if self._logits[row, best] == -torch.inf:
                    return EngineError("there is no token that could come next")
                if sampler.greedy:
                    return best
            return sampler.next_draw(row)
        except ParrotError as error:
            return error
        except Exception as error:
            return EngineError(f"sampling failed: {error}")

    def _masks(self, samplers: Sequence[Sampler]) -> dict[Sampler, Tensor]:
        """What their constraints allow, `[vocabulary]` each, where that is more than one token."""
        constraints = {s: s.constraint for s in samplers if s.constraint and not s.forced}
        if not constraints:
            return {}
        vocabulary, device = self._logits.shape[-1], self._logits.device
        allowed = allowed_tokens([*constraints.values()], vocabulary).to(device)
        return dict(zip(constraints, allowed, strict=True))


@contextmanager
def _changed(
    logits: Tensor, penalties: "Penalties | None", allowed: Tensor | None
) -> Iterator[None]:
    """Logits `[vocabulary]` with their changes, which are few where nothing is forbidden, meanwhile."""
    tokens = slice(None) if allowed is not None else penalties.tokens if penalties else None
    if tokens is None:
        yield
        return
    before = logits[tokens].clone()
    try:
        if penalties is not None:
            penalties.apply(logits, tokens)
        if allowed is not None:
            # What is allowed is finite from here on, so that it can be told from what is not.
            logits.clamp_(-_LARGEST, _LARGEST).masked_fill_(~allowed, -torch.inf)
        yield
    finally:
        logits[tokens] = before


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

    def apply(self, logits: Tensor, tokens: Tensor | slice) -> None:
        """Change logits `[vocabulary]`; those of `tokens`, which has all that change, become finite."""
        if self._sampling.logit_bias:
            _add(logits, self._sampling.logit_bias.keys(), self._sampling.logit_bias.values())
        if self._held:
            self._divide(logits)
        if self._generated and self._penalizes_generated:
            _add(logits, self._generated, map(self._penalty, self._generated.values()))
        logits[tokens] = logits[tokens].clamp(-_LARGEST, _LARGEST)

    @property
    def tokens(self) -> Tensor:
        """Those whose logits it changes."""
        generated = self._generated if self._penalizes_generated else ()
        few = torch.tensor([*self._sampling.logit_bias, *generated], dtype=torch.long)
        return torch.cat((few, self._held_index))

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
