"""The nouns of the engine: a sequence, and what its client is told."""

import time
from collections.abc import Callable, Collection

from torch import Tensor

from parrot_backend.engines.base import Delta, FinishReason, GenerationRequest, TokenLogprobs
from parrot_backend.engines.torch_engine.choose.detokenizer import TextStream
from parrot_backend.engines.torch_engine.choose.logprobs import LogprobsTeller
from parrot_backend.engines.torch_engine.choose.sampling import Sampler
from parrot_backend.engines.torch_engine.memory.kv_memory import Holding
from parrot_backend.engines.torch_engine.schedule.drafting import Drafter
from parrot_backend.wire.errors import ParrotError

Event = Delta | ParrotError


class Sequence:
    """One generation and how far it is.

    [0, computed) has keys and values    [computed, len(tokens)) is to be computed

    It waits while it has no `holding` of KV memory, and decodes when all but its last token is
    computed. A preempted sequence keeps its tokens and computes them again. `counted` prompt tokens
    are in the statistics, as shared or as prefilled.

    In a step it accepts one token, or several where a draft foresaw them, and then tells of them.

    Args:
        request: what is wanted.
        arrival: its place among all sequences; the lower came first.
        limit: tokens that it may have, prompt included.
        end_tokens: the tokens that end a generation.
        sampler: chooses its tokens.
        text: makes text of them.
        deliver: tells the client; called in the engine's thread.
        logprobs: tells its tokens' logprobs; None where nobody asked for them.
        drafts: whether drafts may be guessed.
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
        drafts: bool = True,
    ) -> None:
        self.tokens = list(request.prompt)
        self.prompt_length = len(request.prompt)
        self.tenant = request.tenant
        self.priority = request.priority
        self.kv_share = request.kv_share
        self.interactive = request.interactive
        self.arrival = arrival
        self.sampler = sampler
        self.deliver = deliver
        self.drafter = Drafter(self.tokens, request.draft) if drafts else None
        self.computed = 0
        self.counted = 0
        self.holding: Holding | None = None
        self.cached_tokens: int | None = None
        self.finish_reason: FinishReason | None = None
        self.finished = False
        self._limit = limit
        self._end_tokens = end_tokens
        self._started: float | None = None
        self._text = text
        self._logprobs = logprobs
        self._told = self.prompt_length
        self._new_text = ""
        self._new_logprobs: list[TokenLogprobs] = []

    @property
    def remaining(self) -> int:
        """Tokens to compute before the next can be chosen."""
        return len(self.tokens) - self.computed

    @property
    def decoding(self) -> bool:
        """Whether only the last token is to be computed."""
        return self.holding is not None and self.remaining == 1

    @property
    def room(self) -> int:
        """The most tokens of a draft that can be accepted before the sequence is at its limit."""
        return self._limit - len(self.tokens) - 1

    def bound(self, most: int) -> None:
        """Let it have no more than so many tokens, prompt included."""
        self._limit = min(self._limit, most)

    @property
    def tells_logits(self) -> bool:
        """Whether its client is told of every token's logits."""
        return self._logprobs is not None

    def forced(self, most: int) -> list[int]:
        """At most `most` next tokens that its grammar leaves no choice about."""
        return self.sampler.forced[: max(0, min(most, self.room))]

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
            self._started = time.time()
        new = max(0, min(holding.length, self.prompt_length) - self.counted)
        self.counted += new
        return new

    def stop(self) -> Holding | None:
        """Give up the KV memory; what was computed has to be computed again."""
        holding, self.holding = self.holding, None
        self.computed = 0
        return holding

    def accept(self, token: int, logits: Tensor) -> None:
        """Append the token that was chosen from `logits` `[vocabulary]`.

        Raises:
            InvalidRequestError: the sequence's grammar is over a limit.
        """
        self.tokens.append(token)
        self.sampler.accept(token)
        self._new_text += self._text_of(token)
        if self._logprobs is not None and token not in self._end_tokens:
            self._new_logprobs.append(self._logprobs.tell(logits, token))
        self.finished = self.finish_reason is not None

    def tell(self) -> Delta:
        """What was accepted since it was told last."""
        delta = Delta(
            self._new_text,
            tuple(self.tokens[self._told :]),
            self.cached_tokens or 0,
            self.finish_reason,
            tuple(self._new_logprobs),
            self._started,
        )
        self._told = len(self.tokens)
        self._new_text, self._new_logprobs = "", []
        return delta

    def _text_of(self, token: int) -> str:
        """The text that `token`, the last, makes certain; sets the reason where the text ends."""
        if token in self._end_tokens:
            self.finish_reason = "stop"
            return self._text.finish()
        text = self._text.push(token)
        if self._text.stopped:
            self.finish_reason = "stop"
        elif self.sampler.satisfied:
            self.finish_reason = "stop"
            text += self._text.finish()
        elif len(self.tokens) >= self._limit:
            text += self._text.finish()
            self.finish_reason = "stop" if self._text.stopped else "length"
        return text


def urgency(sequence: Sequence) -> tuple[int, int]:
    """Sorts sequences: higher priority first, then who came first."""
    return -sequence.priority, sequence.arrival
