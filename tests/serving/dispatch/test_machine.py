"""Any order of events: no call is lost, none ends twice, and nothing is left."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)

from parrot_backend.endpoints.base import EndpointState, Sharing
from parrot_backend.serving.call import Call
from parrot_backend.serving.dispatch.dispatcher import Dispatcher
from parrot_backend.serving.dispatch.fleet import Fleet, Member
from parrot_backend.serving.dispatch.graph_policy import GraphPolicy
from parrot_backend.serving.dispatch.members import Seat
from parrot_backend.serving.dispatch.policy import FirstCome, LongestPrefixFirst, Policy
from parrot_backend.serving.dispatch.pool import Pool
from parrot_backend.serving.limits import Limits
from parrot_backend.serving.rank import Rank
from parrot_backend.serving.tenants import Tenant
from parrot_backend.wire.errors import (
    CancelledCallError,
    DeadlineError,
    EngineError,
    NotFoundError,
    UnavailableError,
)
from tests.serving.dispatch.doubles import (
    Book,
    Run,
    StagedEndpoint,
    a_call,
    enter,
    nothing_left,
    prompt_of,
    said,
    settle,
    waiting,
)

RANKS = st.builds(
    Rank,
    critical=st.booleans(),
    batched=st.booleans(),
    application=st.integers(0, 3),
    path=st.integers(1, 3),
    single=st.booleans(),
)
LONG = "a beginning that is long enough that it is worth while to wait for it: " * 30
TENANTS = "ab"
ATTEMPTS = 3
ANSWER = "abcdef"

MakePolicy = Callable[[], Policy]


@dataclass(frozen=True)
class Drawn:
    """A member that is drawn."""

    slots: int
    preempts: bool
    sharing: Sharing
    repeatable: bool
    most: int | None
    tenants: str | None
    model: str | None

    def member(self, name: str) -> Member:
        """It, with an endpoint of its own."""
        card = {"preempts": self.preempts, "sharing": self.sharing, "repeatable": self.repeatable}
        return Member(
            name,
            StagedEndpoint(self.slots, **card),
            aliases=("both",) if self.model is None else (),
            slots=self.most,
            tenants=None if self.tenants is None else frozenset(self.tenants),
            model=self.model,
        )


MEMBERS = st.builds(
    Drawn,
    slots=st.integers(1, 4),
    preempts=st.booleans(),
    sharing=st.sampled_from(["batch", "computed", "slot"]),
    repeatable=st.booleans(),
    most=st.none() | st.integers(1, 3),
    tenants=st.sampled_from([None, None, TENANTS[0]]),
    model=st.sampled_from([None, None, "other"]),
)


def aging_at_once() -> Policy:
    return GraphPolicy(0.0)


class Dispatching(RuleBasedStateMachine):
    """Every rule settles the loop, so that invariants hold after each."""

    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.book = Book()
        self.all: list[Call] = []
        self.readers: list[asyncio.Task[str]] = []

    @initialize(
        members=st.lists(MEMBERS, min_size=1, max_size=3),
        policy=st.sampled_from([FirstCome, LongestPrefixFirst, aging_at_once, None]),
    )
    def begin(self, members: list[Drawn], policy: MakePolicy | None) -> None:
        self.fleet = Fleet(*[drawn.member(f"{n}") for n, drawn in enumerate(members)])
        self.endpoints = [member.endpoint for member in self.fleet.members]
        self.removing: list[asyncio.Task[None]] = []
        self.dispatcher = Dispatcher(self.fleet, Limits(attempts=ATTEMPTS), policy, lambda: 0.0)

    @property
    def pools(self) -> list[Pool]:
        return list(self.dispatcher._pools.values())

    @property
    def seats(self) -> list[Seat]:
        return [seat for pool in self.pools for seat in pool.seats]

    @property
    def runs(self) -> list[Run]:
        return [run for endpoint in self.endpoints for run in endpoint.runs]

    def do(self, event: Callable[[], None] = lambda: None) -> None:
        """Let an event happen in the loop, and what follows from it."""

        async def happen() -> None:
            event()
            await settle(20)

        self.loop.run_until_complete(happen())

    async def _read(self, call: Call) -> str:
        return "".join([delta.text async for delta in call.read()])

    @rule(
        target=calls,
        ranks=st.lists(RANKS, min_size=1, max_size=4),
        tenant=st.sampled_from(TENANTS),
        alike=st.booleans(),
        greedy=st.booleans(),
        model=st.sampled_from([None, "scripted", "other", "both"]),
    )
    def come(
        self, ranks: list[Rank], tenant: str, alike: bool, greedy: bool, model: str | None
    ) -> MultipleResults[Call]:
        new = [
            a_call(
                f"{len(self.all) + number} ",
                owner=self.book,
                rank=rank,
                tenant=Tenant(tenant),
                system=LONG if alike else "",
                temperature=0 if greedy else 1,
                model=model,
            )
            for number, rank in enumerate(ranks)
        ]
        self.all += new
        self.do(lambda: enter(self.dispatcher, *new))
        return multiple(*new)

    @rule(call=calls)
    def read(self, call: Call) -> None:
        self.readers.append(self.loop.create_task(self._read(call)))
        self.do()

    @rule(call=calls, rank=RANKS)
    def rerank(self, call: Call, rank: Rank) -> None:
        call.rank = rank
        self.do(lambda: self.dispatcher.rerank(call))

    @rule(data=st.data(), tokens=st.integers(1, 6))
    def step(self, data: st.DataObject, tokens: int) -> None:
        """One of those that run goes on, to its end where that comes."""
        if self.runs:
            run = data.draw(st.sampled_from(self.runs))
            said_before, run.said = run.said, run.said + tokens
            last = run.said >= len(ANSWER)
            run.steps.put_nowait(said(ANSWER[said_before : run.said], last=last))
            self.do()

    @rule(data=st.data(), how=st.sampled_from(["raises", "stops"]))
    def fail(self, data: st.DataObject, how: str) -> None:
        if self.runs:
            run = data.draw(st.sampled_from(self.runs))
            run.steps.put_nowait(EngineError("by itself") if how == "raises" else None)
            self.do()

    @rule(call=calls)
    def cancel(self, call: Call) -> None:
        self.do(lambda: call.end("cancelled", CancelledCallError("not wanted")))

    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        if unended := [call for call in self.all if not call.ended]:
            call = data.draw(st.sampled_from(unended))
            self.do(lambda: self.dispatcher._expire(call))

    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        self.do(data.draw(st.sampled_from(self.endpoints)).die)

    @rule(data=st.data(), state=st.sampled_from(["starting", "ready", "ready", "draining"]))
    def become(self, data: st.DataObject, state: EndpointState) -> None:
        endpoint = data.draw(st.sampled_from(self.endpoints))
        if not endpoint.closed:
            self.do(lambda: endpoint.become(state))

    @rule(data=st.data(), drawn=MEMBERS)
    def add(self, data: st.DataObject, drawn: Drawn) -> None:
        if len(self.endpoints) < 5:
            member = drawn.member(f"{len(self.endpoints)}")
            self.endpoints.append(member.endpoint)
            self.loop.run_until_complete(self.fleet.add(member))
            self.do()

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if len(self.fleet.seats) > 1:
            name = data.draw(st.sampled_from(self.fleet.seats)).name
            within = data.draw(st.sampled_from([0.0, 60.0]))
            self.removing.append(self.loop.create_task(self.fleet.remove(name, within)))
            self.do()

    @invariant()
    def no_more_run_than_may(self) -> None:
        if not hasattr(self, "fleet"):
            return
        for endpoint in self.endpoints:
            assert endpoint.most <= endpoint.bound
        for pool in self.pools:
            for seat in pool.seats:
                assert seat.total == len(seat.endpoint.runs)
                assert all(count >= 0 for count in seat.running)
                # Those of the first tier alone never have more than the slots, whatever is preempted.
                assert seat.running[0] <= seat.slots
                if seat.member.slots is not None:
                    assert seat.total <= max(seat.member.slots, 2 * seat.slots)

    @invariant()
    def who_runs_may_run_there(self) -> None:
        for call in self.all:
            if call.state == "running":
                seat = next(seat for seat in self.seats if seat.name == call.engine)
                assert seat.allows(call.tenant.name)

    @invariant()
    def who_has_not_ended_runs_or_waits(self) -> None:
        if not hasattr(self, "fleet"):
            return
        running = sorted(prompt_of(run.job).removeprefix(LONG) for run in self.runs)
        states = {"running": [], "queued": [], "done": [], "failed": [], "cancelled": []}
        for call in self.all:
            states[call.state].append(call.id)
        assert running == sorted(states["running"])
        assert waiting(self.dispatcher) == len(states["queued"])
        assert len(self.dispatcher._held) == len(states["running"]) + len(states["queued"])
        for pool in self.pools:
            queue = pool.queue
            roomless = sum(map(len, queue._roomless.values()))
            apart = len(queue._parked) + roomless + len(queue._returning)
            assert len(queue.policy) + apart == len(queue)

    @invariant()
    def no_slot_is_free_while_one_waits_that_may_run(self) -> None:
        if not hasattr(self, "fleet"):
            return
        for pool in self.pools:
            tiers = pool.queue.policy.tiers
            with_room = [s for s in pool.seats if s.tiers_with_room(tiers) == tiers]
            queue = pool.queue
            assert not queue._returning
            apart = queue._parked.union(*queue._roomless.values())
            for call in queue.calls:
                if call not in apart:
                    assert not [s for s in with_room if s.allows(call.tenant.name)]
            idle = not pool.attempts
            for (tenant, _, lost_at), line in queue._roomless.items():
                for call in line:
                    assert {lost.engine for lost in call.lost} == lost_at
                assert not [s for s in with_room if s.allows(tenant) and s.name not in lost_at]
            if idle and with_room:
                assert not pool.queue._parked

    @invariant()
    def nobody_ends_twice_or_for_no_reason(self) -> None:
        for call in self.all:
            ends = [s for s in self.book.states[call.id] if s in ("done", "failed", "cancelled")]
            assert len(ends) == call.ended
            assert call.attempts <= ATTEMPTS
            if call.state == "done":
                assert call.text == ANSWER
                assert call.completion_tokens == len(ANSWER)
            if call.state == "failed":
                assert isinstance(
                    call.error, UnavailableError | EngineError | DeadlineError | NotFoundError
                )
                assert "it said how many" not in call.error.message
            if call.state == "done":
                assert call.engine is not None
                assert len(call.lost) == call.attempts - 1

    def teardown(self) -> None:
        try:
            if hasattr(self, "fleet"):
                self.loop.run_until_complete(self._finish())
        finally:
            self.loop.close()

    async def _unended(self) -> bool:
        await settle()
        return not all(call.ended for call in self.all)

    async def _finish(self) -> None:
        """The endpoints come back and answer: everybody who waits has an end."""
        while await self._unended() or not all(task.done() for task in self.removing):
            for endpoint in self.endpoints:
                if endpoint.state != "ready" and not endpoint.closed:
                    endpoint.become("ready")
            await settle()
            if all(seat.leaving for seat in self.seats):
                break
            for run in self.runs:
                run.steps.put_nowait(said(ANSWER[run.said :]))
        for call in self.all:
            call.end("cancelled", CancelledCallError("nobody is left"))
        await settle()
        for found in await asyncio.gather(*self.readers, return_exceptions=True):
            assert isinstance(found, Exception) or found == ANSWER
        await settle()
        await asyncio.gather(*self.removing)
        assert nothing_left(self.dispatcher)
        await self.dispatcher.aclose()
        await self.fleet.aclose()


TestDispatching = Dispatching.TestCase
TestDispatching.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
