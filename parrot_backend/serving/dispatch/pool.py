"""`Pool`: the members that serve one model, and the calls that run on them.

    enter -> queue -> attempt -> end
               ^         |
               '---------' engine lost

A call is bound to a member as late as can be, when there is room for it.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from parrot_backend.endpoints.base import Card, Job
from parrot_backend.engines.base import Delta, ModelCard
from parrot_backend.program.analysis import Expected
from parrot_backend.serving.call import Call
from parrot_backend.serving.dispatch.attempts import (
    Attempt,
    Meter,
    Ticket,
    prepare_another,
    run,
    seed_for,
)
from parrot_backend.serving.dispatch.lengths import estimated_prompt
from parrot_backend.serving.dispatch.members import Seat
from parrot_backend.serving.dispatch.policy import Policy, Turn
from parrot_backend.serving.dispatch.queue import Queue
from parrot_backend.serving.dispatch.resumption import AnswerDivergedError
from parrot_backend.serving.limits import Limits
from parrot_backend.wire.errors import (
    CancelledCallError,
    EndpointLostError,
    EngineError,
    ParrotError,
    UnavailableError,
)

logger = logging.getLogger(__name__)

# Places given away in one go; an endpoint that comes back has thousands of calls waiting for it.
_AT_ONCE = 256
_A_MOMENT = 0.001


class Pool:
    """Runs the calls of one model.

    Args:
        policy: the order of those that wait.
        expected: the tokens that an answer is likely to have.
        limits: how often a call runs.
        clock: tells the seconds.
    """

    def __init__(
        self, policy: Policy, expected: Expected, limits: Limits, clock: Callable[[], float]
    ) -> None:
        self.seats: list[Seat] = []
        self.attempts: set[Attempt] = set()
        self.queue = Queue(policy, expected, clock)
        self._expected = expected
        self._limits = limits
        self._filling = False
        self._closed = False
        self._drained: asyncio.TimerHandle | None = None
        self._judging: asyncio.TimerHandle | None = None

    @property
    def model(self) -> ModelCard:
        """What every member can do: the first one's card, with the shortest context of all."""
        cards = [seat.endpoint.card.model for seat in self.seats]
        contexts = [card.context_length for card in cards if card.context_length is not None]
        texts = [card.longest_text for card in cards if card.longest_text is not None]
        return replace(
            cards[0],
            name=self.seats[0].model,
            context_length=min(contexts, default=None),
            longest_text=min(texts, default=None),
        )

    @property
    def max_tokens(self) -> int | None:
        """Of an answer to who says none."""
        return _most_tokens(self.seats[0].card)

    # Members

    def ready(self, tenant: str) -> list[Seat]:
        """Those that take calls of a tenant."""
        return [seat for seat in self.seats if seat.state == "ready" and seat.allows(tenant)]

    def changed(self, seat: Seat) -> None:
        """A member is new, of another state, or gone."""
        if seat.gone:
            self.seats.remove(seat)
        elif seat not in self.seats:
            self.seats.append(seat)
        self.queue.changed(seat)
        if seat.gone:
            for attempt in [a for a in self.attempts if a.seat is seat]:
                attempt.displace(UnavailableError(f"engine '{seat.name}' was removed"))
        if seat.gone or seat.state == "failed" or seat.member.tenants is not None:
            self._fail_hopeless()
        self._watch_drained()
        self._fill()

    @property
    def is_empty(self) -> bool:
        """Whether nobody serves its model, and nobody waits for that."""
        return not (self.seats or self.attempts or len(self.queue))

    def _fail_hopeless(self) -> None:
        for call in self.queue.calls:
            if self._is_hopeless(call):
                call.end("failed", self._gone(call))

    def _is_hopeless(self, call: Call) -> bool:
        """Whether no member will ever run it."""
        return all(seat.state == "failed" and not seat.replaced for seat in self._seats_of(call))

    def _seats_of(self, call: Call) -> list[Seat]:
        return [seat for seat in self.seats if seat.allows(call.tenant.name)]

    def _gone(self, call: Call) -> UnavailableError:
        if not self._seats_of(call):
            return UnavailableError("the last engine that served the call's model was removed")
        return EndpointLostError("the engine could not be started again: the server's log says why")

    def _watch_drained(self) -> None:
        """What waits where an operator drains has a while until somebody else comes."""
        waits = len(self.queue) and any(seat.leaving for seat in self.seats)
        if waits and self._drained is None and not self._closed:
            loop = asyncio.get_running_loop()
            self._drained = loop.call_later(self._limits.drain_seconds, self._fail_drained)
        elif not waits and self._drained is not None:
            self._drained.cancel()
            self._drained = None

    def _fail_drained(self) -> None:
        self._drained = None
        for call in self.queue.calls:
            seats = self._seats_of(call)
            if all(
                (seat.leaving or seat.state == "failed") and not seat.replaced for seat in seats
            ):
                error = (
                    "every engine that serves the call's model is being drained: add another one"
                )
                call.end("failed", UnavailableError(error))

    # Calls

    def enter(self, ticket: Ticket) -> None:
        """Queue a call; where there is room, one runs at once."""
        if self._is_hopeless(ticket.call):
            ticket.call.end("failed", self._gone(ticket.call))
            return
        ticket.call.queue()
        self.queue.enter(ticket)
        self._fill()
        self._watch_drained()

    def rerank(self, call: Call) -> None:
        """The rank of a call is another; it counts while the call is queued."""
        self.queue.policy.rerank(call)
        self._fill()

    def ended(self, ticket: Ticket) -> None:
        """Free what the call held; its place when the endpoint has done so, too."""
        self.queue.remove(ticket)
        if (attempt := ticket.attempt) is None:
            self._fill()
        elif attempt.over:
            self._free(attempt)
        else:
            attempt.stop()

    def close(self) -> list["asyncio.Task[None]"]:
        """Bind no more; the tasks of what still runs."""
        self._closed = True
        for timer in (self._drained, self._judging):
            if timer is not None:
                timer.cancel()
        return [attempt.task for attempt in self.attempts if attempt.task is not None]

    def _fill(self) -> None:
        """Give away the places that are free; of very many, the rest a turn of the loop later."""
        if self._filling or self._closed:
            return
        self._filling = True
        try:
            self.queue.judge()
            for _ in range(_AT_ONCE):
                if (step := self.queue.step(self.seats)) is None:
                    self._judge_later()
                    return
                if step.placed is not None:
                    self._bind(*step.placed)
        finally:
            self._filling = False
        asyncio.get_running_loop().call_soon(self._fill)

    def _judge_later(self) -> None:
        """When somebody has waited for too long, though nothing else happens."""
        due, timer = self.queue.placement.next_due, self._judging
        if timer is not None:
            if due is not None and timer.when() <= asyncio.get_running_loop().time() + due:
                return
            timer.cancel()
            self._judging = None
        if due is not None:
            loop = asyncio.get_running_loop()
            self._judging = loop.call_later(due + _A_MOMENT, self._judge)

    def _judge(self) -> None:
        self._judging = None
        self._fill()

    # Attempts

    def _bind(self, ticket: Ticket, turn: Turn, seat: Seat) -> None:
        call, request, card = turn.call, turn.call.request, seat.card
        if request is None:
            call.end(
                "failed", EngineError(f"call '{call.id}' was queued before its inputs were there")
            )
            return
        ticket.seed = ticket.seed or seed_for(request, card)
        named = {"model": card.model.name} if request.model != card.model.name else {}
        seeded = {"seed": ticket.seed} if ticket.seed is not None else {}
        request = request.model_copy(update=named | seeded)
        most = request.max_tokens or _most_tokens(card)
        answer = self._expected(call.rank.site, most)
        charge = partial(self.queue.policy.charge, call)
        meter = Meter(estimated_prompt(request), answer, charge)
        job = Job(
            request,
            turn.priority,
            call.tenant.name,
            tuple(call.draft),  # a job may go to another process, and no array does
            kv_share=call.tenant.kv_share or 1.0,
            interactive=turn.interactive,
        )
        attempt = ticket.attempt = Attempt(ticket, turn, seat, meter, job)
        self.attempts.add(attempt)
        seat.take(turn.tier, interactive=turn.interactive)
        attempt.task = asyncio.create_task(self._run(attempt), name=f"call {call.id}")
        attempt.task.add_done_callback(lambda _: self._stopped(attempt))
        call.start(seat.name)

    async def _run(self, attempt: Attempt) -> None:
        call = attempt.call
        try:
            last = await run(attempt, attempt.job, self._stepped)
        except asyncio.CancelledError:
            if attempt.displaced is None:
                raise
            self._lost(attempt, attempt.displaced)
        except AnswerDivergedError as error:
            self._fail(attempt, error)
        except UnavailableError as error:
            self._lost(attempt, error)
        except ParrotError as error:
            self._fail(attempt, error)
        except Exception as error:
            logger.exception("call %s failed", call.id)
            self._fail(attempt, EngineError(f"the engine failed: {error!r}"))
        else:
            attempt.over = True
            call.publish(last)
            call.end("done")

    def _stepped(self, attempt: Attempt, step: Delta) -> None:
        """The first step tells that the prompt is computed."""
        attempt.last = step
        if not attempt.has_computed:
            attempt.has_computed, attempt.told = True, step.tells_cached
            self.queue.computed(attempt.ticket, step)
            self._fill()

    def _fail(self, attempt: Attempt, error: ParrotError) -> None:
        attempt.over = True
        call = attempt.call
        call.end("failed", attempt.seat.told_to(call.tenant, error))

    def _lost(self, attempt: Attempt, error: UnavailableError) -> None:
        """The engine died or went under a call: it is queued again, so long as it may and can be."""
        call, ticket = attempt.call, attempt.ticket
        if call.ended:
            return
        if refused := self._is_refused(attempt):
            call.attempts -= 1
            ticket.refused[attempt.seat.key] += 1
        else:
            call.lose(attempt.seat.told_to(call.tenant, error).message)
        try:
            if self._is_refused_for_good(ticket) if refused else self._has_had_all(call):
                raise error
            prepare_another(call, attempt.job)
        except UnavailableError as final:
            self._fail(attempt, final)
            return
        attempt.over, ticket.attempt = True, None
        call.queue()
        self._release(attempt)
        self.queue.enter(ticket)
        if self._is_hopeless(call):
            call.end("failed", self._gone(call))
        self._fill()
        self._watch_drained()

    def _is_refused(self, attempt: Attempt) -> bool:
        """Whether it was not begun, by an engine that takes nothing for a while and lives."""
        seat = attempt.seat
        return not (attempt.has_computed or seat.gone or seat.slots) and seat.state == "ready"

    def _is_refused_for_good(self, ticket: Ticket) -> bool:
        """Whether each member has refused it as often as it may be lost."""
        seats = [seat for seat in self._seats_of(ticket.call) if seat.state != "failed"]
        return all(ticket.refused[seat.key] >= self._limits.attempts for seat in seats)

    def _has_had_all(self, call: Call) -> bool:
        return call.attempts >= self._limits.attempts

    def _free(self, attempt: Attempt) -> None:
        """The attempt's place is free, and goes to the next."""
        if attempt in self.attempts:
            self._release(attempt)
            self._fill()

    def _release(self, attempt: Attempt) -> None:
        self.attempts.remove(attempt)
        attempt.seat.free(attempt.turn.tier, interactive=attempt.turn.interactive)
        attempt.meter.close()
        self.queue.ended(attempt.ticket, None if attempt.told else attempt.last)

    def _stopped(self, attempt: Attempt) -> None:
        """The task is gone; where it was not the call's end that stopped it, that is the end."""
        unended = attempt.ticket.attempt is attempt and not attempt.call.ended
        if unended and attempt.displaced is not None:  # before the task had begun
            self._lost(attempt, attempt.displaced)
            return
        self._free(attempt)
        if unended:
            attempt.call.end("cancelled", CancelledCallError("the call was stopped"))
        if attempt.ticket.attempt is attempt:
            # A circle: what is in it would be kept until the garbage collector comes by.
            attempt.ticket.attempt = None


def _most_tokens(card: Card) -> int | None:
    """Of an answer to who says none, where that is known."""
    config = card.model.generation_config
    return None if config is None else config.max_tokens
