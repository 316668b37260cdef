"""The dispatcher: server-wide books on calls, each of which runs in the pool of its model.

    admit -> track -> enter -> pool -> end

A call has a place that its tenant's quota counts, a ticket and a deadline until it ends, whoever ends
it.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from parrot_backend.engines.base import ModelCard
from parrot_backend.serving.call import Call
from parrot_backend.serving.dispatch.attempts import Ticket
from parrot_backend.serving.dispatch.fleet import Fleet
from parrot_backend.serving.dispatch.graph_policy import GraphPolicy
from parrot_backend.serving.dispatch.lengths import Lengths
from parrot_backend.serving.dispatch.members import Seat
from parrot_backend.serving.dispatch.policy import Policy
from parrot_backend.serving.dispatch.pool import Pool
from parrot_backend.serving.dispatch.quotas import Quotas
from parrot_backend.serving.limits import Limits
from parrot_backend.serving.tenants import EVERYBODY, Tenant
from parrot_backend.wire.errors import (
    DeadlineError,
    InvalidRequestError,
    NotFoundError,
    ParrotError,
    UnavailableError,
)
from parrot_backend.wire.text_protocol import LLMRequest

MakePolicy = Callable[[], Policy]


@dataclass(slots=True)
class _Held:
    """What an unfinished call holds: a deadline from when it could run, and its ticket for a pool."""

    ticket: Ticket
    deadline: asyncio.TimerHandle | None = None
    pool: Pool | None = None


class Dispatcher:
    """Runs calls on the engines of a fleet.

    Args:
        fleet: has a pool for each model that it serves.
        limits: bounds what is unfinished, and how long and how often a call runs.
        make_policy: the order of those that wait, one for each pool; by default what the programs say.
        clock: tells the seconds, for placement.
    """

    def __init__(
        self,
        fleet: Fleet,
        limits: Limits,
        make_policy: MakePolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fleet = fleet
        self.applications = 0
        self.lengths = Lengths()
        self._limits = limits
        self._clock = clock
        self._make_policy = make_policy or partial(GraphPolicy, limits.aging_seconds)
        self._quotas = Quotas(limits.unfinished_calls)
        self._pools: dict[str, Pool] = {}
        self._held: dict[Call, _Held] = {}
        self._closed = False
        fleet.listen(self._changed)

    def new_application(self) -> int:
        """The number of an application that begins now, `applications` before; older ones are lower."""
        self.applications += 1
        return self.applications - 1

    def expected_answer(self, site: str, max_tokens: int | None) -> float:
        """Tokens that an answer at this site is likely to have, at most those that it may have."""
        if max_tokens is None and (model := self.fleet.model) is not None:
            max_tokens = self._pools[model].max_tokens
        return self.lengths.expected(site, max_tokens)

    # Models

    def served(self, model: str | None, tenant: Tenant = EVERYBODY) -> ModelCard:
        """The model that serves `model`, by its name here; None means the first one.

        Raises:
            NotFoundError: this server does not serve that model, or not to this tenant.
        """
        return self._pool_of(model, tenant).model

    async def tokenize(self, request: LLMRequest, model: str | None, tenant: Tenant) -> list[int]:
        """The tokens of a request's prompt, by the first member of a model's that can tell.

        Raises:
            NotFoundError: its model is not served.
            ParrotError: see `Endpoint.tokenize`.
        """
        pool, problem = self._pool_of(model, tenant), None
        for seat in pool.ready(tenant.name) or pool.seats:
            try:
                return await seat.endpoint.tokenize(_named_for(seat, request))
            except InvalidRequestError as error:
                raise seat.told_to(tenant, error) from None
            except ParrotError as error:
                problem = problem or seat.told_to(tenant, error)
        raise problem or UnavailableError("there is no engine to ask")

    def pins(self, model: str | None, tenant: Tenant) -> bool:
        """Whether `expect` does something for a model now."""
        return bool(self._pinning(model, tenant))

    def expect(self, examples: Sequence[LLMRequest], tenant: Tenant) -> Callable[[], None]:
        """A hint, as `Endpoint.expect`, to the member that would run what begins so."""
        if not (seats := self._pinning(examples[0].model, tenant)):
            return lambda: None
        pool = self._pool_of(examples[0].model, tenant)
        seat = pool.queue.prospect(examples[0], tenant.name, seats) or seats[0]
        return seat.endpoint.expect([_named_for(seat, e) for e in examples], tenant.name)

    def _pinning(self, model: str | None, tenant: Tenant) -> list[Seat]:
        try:
            pool = self._pool_of(model, tenant)
        except NotFoundError:
            return []
        return [seat for seat in pool.ready(tenant.name) if seat.endpoint.card.pins]

    # Calls

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
        self._held[call] = _Held(Ticket(call))
        call.at_end(partial(self._ended, call))

    def limit_time(self, call: Call) -> None:
        """Give a tracked call its deadline, from now on; `enter` does so where nobody has before."""
        held = self._held[call]
        if held.deadline is None:
            loop = asyncio.get_running_loop()
            held.deadline = loop.call_later(self._limits.call_seconds, self._expire, call)

    def enter(self, call: Call) -> None:
        """Queue a rendered call that is tracked; where there is room, one runs at once."""
        if call.ended:
            return
        if self._closed:
            call.end("cancelled", _closing())
            return
        try:
            pool = self._pool_of(None if call.request is None else call.request.model, call.tenant)
        except NotFoundError as error:
            call.end("failed", error)
            return
        self.limit_time(call)
        held = self._held[call]
        held.pool = pool
        pool.enter(held.ticket)

    def rerank(self, call: Call) -> None:
        """The rank of a call is another; it counts while the call is queued."""
        held = self._held.get(call)
        if held is not None and held.pool is not None:
            held.pool.rerank(call)

    async def aclose(self) -> None:
        """End everything and wait until it is gone."""
        self._closed = True
        tasks = [task for pool in self._pools.values() for task in pool.close()]
        for call in [*self._held]:
            call.end("cancelled", _closing())
        await asyncio.gather(*tasks, return_exceptions=True)

    def _pool_of(self, model: str | None, tenant: Tenant) -> Pool:
        return self._pools[self.fleet.names.served(model, tenant)]

    def _changed(self, seat: Seat) -> None:
        """A seat is new, of another state, or gone."""
        if (pool := self._pools.get(seat.model)) is None:
            policy = self._make_policy()
            pool = Pool(policy, self.expected_answer, self._limits, self._clock)
            self._pools[seat.model] = pool
        pool.changed(seat)
        if seat.gone:  # earlier ones may have had calls that took a moment to end
            self._pools = {name: each for name, each in self._pools.items() if not each.is_empty}

    # The end

    def _expire(self, call: Call) -> None:
        seconds = self._limits.call_seconds
        call.end(
            "failed", DeadlineError(f"call '{call.id}' has not ended within {seconds:g} seconds")
        )

    def _ended(self, call: Call) -> None:
        """Free what the call held; its place in a pool when the endpoint has done so, too."""
        held = self._held.pop(call)
        if held.deadline is not None:
            held.deadline.cancel()
        self._quotas.release(call.tenant, call.prompt_tokens + call.completion_tokens)
        if call.state == "done":
            self.lengths.learn(call.rank.site, call.completion_tokens)
        if held.pool is not None:
            held.pool.ended(held.ticket)


def _named_for(seat: Seat, request: LLMRequest) -> LLMRequest:
    """With the name that the endpoint itself has for its model."""
    name = seat.endpoint.card.model.name
    return request if request.model == name else request.model_copy(update={"model": name})


def _closing() -> UnavailableError:
    return UnavailableError("the server is shutting down")
