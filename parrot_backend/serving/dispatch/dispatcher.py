"""The dispatcher: calls wait in its queue, and each runs when its turn comes and a slot is free.

    enter -> policy -> slot -> attempt -> end
               ^                  |
               `--- endpoint lost '

A call is bound to the endpoint as late as can be, by its rank at that time. What it holds, its place
in the queue or its slot, a timer and a task, it has until it ends, whoever ends it.
"""

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

from parrot_backend.endpoints.base import Card, Endpoint, Job
from parrot_backend.serving.call import Call
from parrot_backend.serving.dispatch.attempts import (
    Attempt,
    Meter,
    prepare_another,
    run,
    seed_for,
)
from parrot_backend.serving.dispatch.graph_policy import GraphPolicy
from parrot_backend.serving.dispatch.lengths import Lengths, estimated_prompt
from parrot_backend.serving.dispatch.policy import Policy, Turn
from parrot_backend.serving.dispatch.prefixes import SharedPrefixes
from parrot_backend.serving.dispatch.quotas import Quotas
from parrot_backend.serving.dispatch.resumption import AnswerDivergedError
from parrot_backend.serving.limits import Limits
from parrot_backend.serving.tenants import Tenant
from parrot_backend.wire.errors import (
    CancelledCallError,
    DeadlineError,
    EndpointLostError,
    EngineError,
    NotFoundError,
    ParrotError,
    UnavailableError,
)

logger = logging.getLogger(__name__)

# Slots given away in one go; an endpoint that comes back has thousands of calls waiting for it.
_AT_ONCE = 256


@dataclass(slots=True)
class _Ticket:
    """What an unfinished call holds here; `seed` is the one that was drawn for it."""

    deadline: asyncio.TimerHandle | None = None
    attempt: Attempt | None = None
    seed: int | None = None


class Dispatcher:
    """Runs calls on one endpoint.

    Args:
        endpoint: runs as many at once as its card says.
        limits: bounds what is unfinished, and how long and how often a call runs.
        policy: the order of those that wait; by default what the programs say.
    """

    def __init__(self, endpoint: Endpoint, limits: Limits, policy: Policy | None = None) -> None:
        self.endpoint = endpoint
        self.applications = 0
        self.lengths = Lengths()
        self._limits = limits
        self._policy = policy if policy is not None else GraphPolicy(limits.aging_seconds)
        self._quotas = Quotas(limits.unfinished_calls)
        self._prefixes = SharedPrefixes()
        self._tickets: dict[Call, _Ticket] = {}
        self._attempts: set[Attempt] = set()
        self._running = [0] * self._policy.tiers
        self._returning: OrderedDict[Call, None] = OrderedDict()
        self._filling = False
        self._closed = False
        endpoint.watch(self._state_changed)

    def new_application(self) -> int:
        """The number of an application that begins now, `applications` before; older ones are lower."""
        self.applications += 1
        return self.applications - 1

    def expected_answer(self, site: str, max_tokens: int | None) -> float:
        """Tokens that an answer at this site is likely to have, at most those that it may have."""
        cap = max_tokens or self.endpoint.card.model.generation_config.max_tokens
        return self.lengths.expected(site, cap)

    def check_model(self, model: str | None) -> str:
        """The name of the model that serves `model`; None means the server's own.

        Raises:
            NotFoundError: this server does not serve that model.
        """
        served = self.endpoint.card.model.name
        if model not in (None, served):
            raise NotFoundError(
                f"model '{model}' is not served here: this server serves '{served}'. Leave the model "
                f"out, or start a server with --model {model}",
                param="model",
                code="model_not_found",
            )
        return served

    def admit(self, tenant: Tenant, calls: int) -> None:
        """Take places for so many calls, all or none; each is tracked next, and keeps it to its end.

        Raises:
            OverloadedError: the server is full.
            QuotaError: the tenant has as many as it may have, or used its tokens up.
            UnavailableError: the server is shutting down.
        """
        if self._closed:
            raise _closing()
        self._quotas.admit(tenant, calls)

    def track(self, call: Call) -> None:
        """Give a place that was taken to a call, which holds it until it ends."""
        self._tickets[call] = _Ticket()
        call.at_end(partial(self._ended, call))

    def limit_time(self, call: Call) -> None:
        """Give a tracked call its deadline, from now on; `enter` does so where nobody has before."""
        ticket = self._tickets[call]
        if ticket.deadline is None:
            loop = asyncio.get_running_loop()
            ticket.deadline = loop.call_later(self._limits.call_seconds, self._expire, call)

    def enter(self, call: Call) -> None:
        """Queue a rendered call that is tracked; where a slot is free, one runs at once."""
        if call.ended:
            return
        if self._closed:
            call.end("cancelled", _closing())
            return
        if self.endpoint.state == "failed":
            call.end("failed", _gone())
            return
        self.limit_time(call)
        call.queue()
        self._policy.enter(call)
        self._fill()

    def rerank(self, call: Call) -> None:
        """The rank of a call is another; it counts while the call is queued."""
        self._policy.rerank(call)
        self._fill()

    async def aclose(self) -> None:
        """End everything and wait until it is gone."""
        self._closed = True
        for call in [*self._tickets]:
            call.end("cancelled", _closing())
        tasks = [attempt.task for attempt in self._attempts if attempt.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    # The queue

    def _fill(self) -> None:
        """Give away the slots that are free; of very many, the rest a turn of the loop later."""
        if self._filling:
            return
        self._filling = True
        try:
            for _ in range(_AT_ONCE):
                if not self._fill_one():
                    return
        finally:
            self._filling = False
        asyncio.get_running_loop().call_soon(self._fill)

    def _fill_one(self) -> bool:
        """Bring one call further; whether there was one."""
        if self._closed or self.endpoint.state != "ready":
            return False
        if self._returning:
            self._policy.enter(self._returning.popitem(last=False)[0])
            return True
        card = self.endpoint.card
        turn = self._policy.next(self._tiers_with_room(card))
        if turn is None:
            return False
        if card.shares_in_batch or self._prefixes.may_run(turn.call):
            self._bind(turn, card)
        return True

    def _tiers_with_room(self, card: Card) -> int:
        """A call of the first so many tiers may run.

        Where the endpoint preempts, those of lower tiers stand in nobody's way. But each holds memory,
        so there are never more than two for a slot; and of what is beyond the slots each tier leaves
        a part to those above it.
        """
        total, lowest = len(self._attempts), self._policy.tiers - 1
        if not card.preempts or not lowest:
            return self._policy.tiers if total < card.slots else 0
        taken = 0
        for tier, running in enumerate(self._running):
            taken += running
            most = card.slots * (2 * lowest - tier) // lowest
            if taken >= card.slots or total >= most:
                return tier
        return self._policy.tiers

    def _state_changed(self) -> None:
        if self.endpoint.state != "ready":
            self._prefixes.forget()
        if self.endpoint.state == "failed":
            for call in [*self._tickets]:
                if call.state == "queued":
                    call.end("failed", _gone())
        self._fill()

    def _return(self, calls: list[Call]) -> None:
        """What they waited for was computed, or will not be: they are in the queue again."""
        self._returning.update(dict.fromkeys(calls))

    # Attempts

    def _bind(self, turn: Turn, card: Card) -> None:
        call, request = turn.call, turn.call.request
        if request is None:
            call.end(
                "failed", EngineError(f"call '{call.id}' was queued before its inputs were there")
            )
            return
        ticket = self._tickets[call]
        ticket.seed = ticket.seed or seed_for(request, card)
        if ticket.seed is not None:
            request = request.model_copy(update={"seed": ticket.seed})
        answer = self.expected_answer(call.rank.site, request.max_tokens)
        charge = partial(self._policy.charge, call)
        attempt = Attempt(turn, Meter(estimated_prompt(request), answer, charge))
        ticket.attempt = attempt
        self._attempts.add(attempt)
        self._running[turn.tier] += 1
        job = Job(
            request,
            turn.priority,
            call.tenant.name,
            tuple(call.draft),  # a job may go to another process, and no array does
            kv_share=call.tenant.kv_share or 1.0,
            interactive=turn.interactive,
        )
        work = self._run(attempt, job)
        attempt.task = asyncio.create_task(work, name=f"call {call.id}")
        attempt.task.add_done_callback(lambda _: self._stopped(attempt))
        call.start()

    async def _run(self, attempt: Attempt, job: Job) -> None:
        call = attempt.call
        try:
            last = await run(self.endpoint, attempt, job, self._has_computed)
        except AnswerDivergedError as error:
            self._fail(attempt, error)
        except EndpointLostError as error:
            self._lost(attempt, job, error)
        except ParrotError as error:
            self._fail(attempt, error)
        except Exception as error:
            logger.exception("call %s failed", call.id)
            self._fail(attempt, EngineError(f"the engine failed: {error!r}"))
        else:
            attempt.over = True
            call.publish(last)
            call.end("done")

    def _has_computed(self, call: Call) -> None:
        if waiting := self._prefixes.has_computed(call):
            self._return(waiting)
            self._fill()

    def _fail(self, attempt: Attempt, error: ParrotError) -> None:
        attempt.over = True
        attempt.call.end("failed", error)

    def _lost(self, attempt: Attempt, job: Job, error: EndpointLostError) -> None:
        """The endpoint died under a call: it is queued again, so long as it may and can be."""
        call = attempt.call
        if call.ended:
            return
        try:
            if call.attempts >= self._limits.attempts:
                raise error
            prepare_another(call, job)
        except EndpointLostError as final:
            self._fail(attempt, final)
            return
        attempt.over, self._tickets[call].attempt = True, None
        self._return(self._prefixes.remove(call))
        call.queue()
        self._policy.enter(call)
        self._free(attempt)

    def _free(self, attempt: Attempt) -> None:
        """The attempt's slot is free, and goes to the next."""
        if attempt in self._attempts:
            self._attempts.remove(attempt)
            self._running[attempt.turn.tier] -= 1
            attempt.meter.close()
            self._fill()

    def _stopped(self, attempt: Attempt) -> None:
        """The task is gone; where it was not the call's end that stopped it, that is the end."""
        self._free(attempt)
        ticket = self._tickets.get(attempt.call)
        if ticket is not None and ticket.attempt is attempt:
            attempt.call.end("cancelled", CancelledCallError("the call was stopped"))

    # The end

    def _expire(self, call: Call) -> None:
        seconds = self._limits.call_seconds
        call.end(
            "failed", DeadlineError(f"call '{call.id}' has not ended within {seconds:g} seconds")
        )

    def _ended(self, call: Call) -> None:
        """Free what the call held; its slot when the endpoint has done so, too."""
        ticket = self._tickets.pop(call)
        if ticket.deadline is not None:
            ticket.deadline.cancel()
        self._policy.remove(call)
        self._returning.pop(call, None)
        self._return(self._prefixes.remove(call))
        self._quotas.release(call.tenant, call.prompt_tokens + call.completion_tokens)
        if call.state == "done":
            self.lengths.learn(call.rank.site, call.completion_tokens)
        if ticket.attempt is None:
            return
        if ticket.attempt.over:
            self._free(ticket.attempt)
        else:
            ticket.attempt.stop()


def _gone() -> EndpointLostError:
    return EndpointLostError("the engine could not be started again: the server's log says why")


def _closing() -> UnavailableError:
    return UnavailableError("the server is shutting down")
