"""The nouns of the engine: a sequence, and what its client is told."""

from collections.abc import Callable, Collection

from torch import Tensor

from parrot_backend.engines.base import Delta, FinishReason, GenerationRequest, TokenLogprobs
from parrot_backend.engines.torch_engine.detokenizer import TextStream
from parrot_backend.engines.torch_engine.logprobs import LogprobsTeller
from parrot_backend.engines.torch_engine.memory import Holding
from parrot_backend.engines.torch_engine.sampling import Sampler
from parrot_backend.errors import ParrotError

Event = Delta | ParrotError


class Sequence:
    """One generation and how far it is.

    [0, computed) has keys and values    [computed, len(tokens)) is to be computed

    It waits while it has no `holding` of KV memory, and decodes when all but its last token is
    computed. A preempted sequence keeps its tokens and computes them again. `counted` prompt tokens
    are in the statistics, as shared or as prefilled.

    Args:
        request: what is wanted.
        arrival: its place among all sequences; the lower came first.
        limit: tokens that it may have, prompt included.
        end_tokens: the tokens that end a generation.
        sampler: chooses its tokens.
        text: makes text of them.
        deliver: tells the client; called in the engine's thread.
        logprobs: tells its tokens' logprobs; None where nobody asked for them.
    """

    def __init__(
        self,
        request: GenerationRequest,
        *,
        arrival: int,
        limit: int,
        end_tokens: Collection[int],
        sampler: Sampler,
        text: TextStream,
        deliver: Callable[[Event], None],
        logprobs: LogprobsTeller | None = None,
    ) -> None:
        self.tokens = list(request.prompt)
        self.prompt_length = len(request.prompt)
        self.tenant = request.tenant
        self.priority = request.priority
        self.arrival = arrival
        self.sampler = sampler
        self.deliver = deliver
        self.computed = 0
        self.counted = 0
        self.holding: Holding | None = None
        self.cached_tokens: int | None = None
        self.finished = False
        self._limit = limit
        self._end_tokens = end_tokens
        self._text = text
        self._logprobs = logprobs

    @property
    def remaining(self) -> int:
        """Tokens to compute before the next can be chosen."""
        return len(self.tokens) - self.computed

    @property
    def decoding(self) -> bool:
        """Whether only the last token is to be computed."""
        return self.holding is not None and self.remaining == 1

    @property
    def uncommitted(self) -> list[int]:
        """The computed tokens that are not in the prefix tree."""
        start = self.holding.node.end if self.holding else 0
        return self.tokens[start : self.computed]

    def start(self, holding: Holding) -> int:
        """Begin, or begin again, behind what `holding` has computed already.

        Returns:
            The prompt tokens among these that were not counted before.
        """
        self.holding = holding
        self.computed = holding.length
        if self.cached_tokens is None:
            self.cached_tokens = holding.length
        new = max(0, min(holding.length, self.prompt_length) - self.counted)
        self.counted += new
        return new

    def stop(self) -> Holding | None:
        """Give up the KV memory; what was computed has to be computed again."""
        holding, self.holding = self.holding, None
        self.computed = 0
        return holding

    def accept(self, token: int, logits: Tensor) -> Delta:
        """Append the token that was chosen from `logits` `[vocabulary]`, and say what it adds.

        Raises:
            InvalidRequestError: the sequence's grammar is over a limit.
        """
        self.tokens.append(token)
        self.sampler.accept(token)
        reason: FinishReason | None = None
        if token in self._end_tokens:
            text, reason = self._text.finish(), "stop"
        else:
            text = self._text.push(token)
            if self._text.stopped:
                reason = "stop"
            elif self.sampler.satisfied:
                text, reason = text + self._text.finish(), "stop"
            elif len(self.tokens) >= self._limit:
                text += self._text.finish()
                reason = "stop" if self._text.stopped else "length"
        self.finished = reason is not None
        logprobs = self._tell_logprobs(token, logits)
        return Delta(text, (token,), self.cached_tokens or 0, reason, logprobs)

    def _tell_logprobs(self, token: int, logits: Tensor) -> tuple[TokenLogprobs, ...]:
        if self._logprobs is None or token in self._end_tokens:
            return ()
        return (self._logprobs.tell(logits, token),)


def urgency(sequence: Sequence) -> tuple[int, int]:
    """Sorts sequences: higher priority first, then who came first."""
    return -sequence.priority, sequence.arrival
