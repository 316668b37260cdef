"""Attempts: one run of a call on an engine each, and what it takes that another goes on from it."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from parrot_backend.endpoints.base import Card, Job
from parrot_backend.engines.base import Delta
from parrot_backend.program.analysis import PREFILLED_PER_GENERATED
from parrot_backend.serving.call import Call
from parrot_backend.serving.dispatch.lengths import estimated_prompt
from parrot_backend.serving.dispatch.members import Seat
from parrot_backend.serving.dispatch.policy import Turn
from parrot_backend.serving.dispatch.resumption import Resumption
from parrot_backend.serving.placement.blocks import blocks_of
from parrot_backend.serving.placement.views import PlacedCall
from parrot_backend.wire.errors import EndpointLostError, EngineError, UnavailableError
from parrot_backend.wire.text_protocol import LLMRequest

_PROMPT_WEIGHT = 1 / PREFILLED_PER_GENERATED


class Meter:
    """What an attempt costs, in tokens of answers: what is expected at first, put right as it comes.

    Charged from the start on, for else who comes with many calls at once has them all at no price.

    Args:
        prompt, answer: the tokens that are expected.
        charge: told what it costs more, or less.
    """

    def __init__(self, prompt: float, answer: float, charge: Callable[[float], None]) -> None:
        self._prompt = prompt * _PROMPT_WEIGHT
        self._answer = answer
        self._served = 0
        self._started = self._told = False
        self._charge = charge
        charge(self._prompt + answer)

    def add(self, delta: Delta) -> None:
        """A step has come; of the prompt what isn't cached counts, where that is told."""
        self._started = True
        if delta.prompt_tokens and (delta.tells_cached or not self._told):
            self._told = True
            computed = (delta.prompt_tokens - delta.cached_tokens) * _PROMPT_WEIGHT
            if computed != self._prompt:
                self._charge(computed - self._prompt)
                self._prompt = computed
        self._served += len(delta.tokens) + delta.untold_tokens
        if self._served > self._answer:
            self._charge(self._served - self._answer)
            self._answer = self._served

    def close(self) -> None:
        """Nothing more comes."""
        unused = self._answer - self._served + (0 if self._started else self._prompt)
        if unused:
            self._charge(-unused)


@dataclass(slots=True, eq=False)
class Ticket:
    """What a pool knows of an unfinished call: its attempt while it runs, the seed that was drawn for
    it, what placement knows it by, and how often which members have refused it."""

    call: Call
    attempt: "Attempt | None" = None
    seed: int | None = None
    placed: PlacedCall | None = None
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True, eq=False)
class Attempt:
    """One run of a call; when it is `over`, the endpoint has freed all that it held. `last` is its last
    step so far, and whether its first one `told` how much of the prompt was cached.
    """

    ticket: Ticket
    turn: Turn
    seat: Seat
    meter: Meter
    job: Job
    has_computed: bool = False
    told: bool = False
    last: Delta | None = None
    displaced: UnavailableError | None = None
    task: asyncio.Task[None] | None = None
    over: bool = False

    @property
    def call(self) -> Call:
        """What runs."""
        return self.turn.call

    def stop(self) -> None:
        """End it; the endpoint frees what it held within a step."""
        if self.task is not None:
            self.task.cancel()

    def displace(self, why: UnavailableError) -> None:
        """End it as one that is lost, whatever its endpoint does."""
        if not self.over:
            self.displaced = why
            self.stop()


def placed_call(call: Call, request: LLMRequest, answer_tokens: float) -> PlacedCall:
    """What placement has to know of a call."""
    group = (
        None if call.group is None else (call.tenant.name, call.rank.application, call.rank.group)
    )
    return PlacedCall(
        call.id,
        call.tenant.name,
        blocks_of(request, call.tenant.name),
        estimated_prompt(request),
        answer_tokens,
        group,
        call.group_size or 1,
        interactive=call.rank.tier == 0,
        key=call,
    )


async def run(attempt: Attempt, job: Job, on_step: Callable[[Attempt, Delta], None]) -> Delta:
    """Publish what the endpoint answers but for the last delta, which is returned when all is freed.

    Raises:
        EndpointLostError: the endpoint died; AnswerDivergedError where the answer is another one.
        EngineError: it ended without a finish reason.
        ParrotError: the request can't be run.
    """
    call = attempt.call
    resumption = Resumption(call) if call.seen else None
    async with aclosing(attempt.seat.endpoint.generate(job)) as deltas:
        async for told in deltas:
            on_step(attempt, told)
            attempt.meter.add(told)
            delta = told if resumption is None else resumption.cut(told)
            if delta is None:
                continue
            if delta.finish_reason is not None:
                break
            call.publish(delta)
        else:
            raise EngineError(f"the answer to call '{call.id}' ended without a finish reason")
    return delta


def seed_for(request: LLMRequest, card: Card) -> int | None:
    """A seed for a request that is sampled without one, where it makes its answer come again."""
    return random.getrandbits(63) if card.repeatable and not _is_fixed(request) else None


def prepare_another(call: Call, job: Job) -> None:
    """See that a call whose endpoint died can run again.

    What nobody has seen is forgotten. The rest is told no second time, so it has to come again.

    Raises:
        EndpointLostError: somebody has read a beginning that will not come again.
    """
    if not call.seen:
        call.restart()
    elif not _is_fixed(job.request):
        raise EndpointLostError(
            "what ran the call died after a part of its answer was read, and sampled without a seed "
            "the same answer does not come again: send the request again, or with a seed",
            code="not_repeatable",
        )


def _is_fixed(request: LLMRequest) -> bool:
    """Whether the request itself says which answer it has: greedy, or with a seed."""
    return request.temperature == 0 or request.seed is not None
