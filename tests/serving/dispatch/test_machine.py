"""Any order of events: no call is lost, none ends twice, and nothing is left."""

import asyncio
from collections.abc import Callable

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

from parrot_backend.endpoints.base import EndpointState
from parrot_backend.serving.call import Call
from parrot_backend.serving.dispatch.dispatcher import Dispatcher
from parrot_backend.serving.dispatch.graph_policy import GraphPolicy
from parrot_backend.serving.dispatch.policy import FirstCome, LongestPrefixFirst, Policy
from parrot_backend.serving.limits import Limits
from parrot_backend.serving.rank import Rank
from parrot_backend.serving.tenants import Tenant
from parrot_backend.wire.errors import (
    CancelledCallError,
    DeadlineError,
    EndpointLostError,
    EngineError,
)
from tests.serving.dispatch.doubles import (
    Book,
    StagedEndpoint,
    a_call,
    enter,
    nothing_left,
    prompt_of,
    said,
    settle,
)

RANKS = st.builds(
    Rank,
    critical=st.booleans(),
    batched=st.booleans(),
    application=st.integers(0, 3),
    path=st.integers(1, 3),
    single=st.booleans(),
)
LONG = "a beginning that is long enough that it is worth while to wait for it: "
ATTEMPTS = 3
ANSWER = "abcdef"

MakePolicy = Callable[[], Policy | None]


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
        slots=st.integers(1, 4),
        preempts=st.booleans(),
        shares=st.booleans(),
        repeatable=st.booleans(),
        policy=st.sampled_from([FirstCome, LongestPrefixFirst, aging_at_once, lambda: None]),
    )
    def begin(
        self, slots: int, preempts: bool, shares: bool, repeatable: bool, policy: MakePolicy
    ) -> None:
        card = {"preempts": preempts, "shares_in_batch": shares, "repeatable": repeatable}
        self.endpoint = StagedEndpoint(slots, **card)
        self.dispatcher = Dispatcher(self.endpoint, Limits(attempts=ATTEMPTS), policy())
        self.tiers = self.dispatcher._policy.tiers

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
        tenant=st.sampled_from("ab"),
        alike=st.booleans(),
        greedy=st.booleans(),
    )
    def come(
        self, ranks: list[Rank], tenant: str, alike: bool, greedy: bool
    ) -> MultipleResults[Call]:
        new = [
            a_call(
                f"{len(self.all) + number} ",
                owner=self.book,
                rank=rank,
                tenant=Tenant(tenant),
                system=LONG if alike else "",
                temperature=0 if greedy else 1,
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
        if self.endpoint.runs:
            run = data.draw(st.sampled_from(self.endpoint.runs))
            said_before, run.said = run.said, run.said + tokens
            last = run.said >= len(ANSWER)
            run.steps.put_nowait(said(ANSWER[said_before : run.said], last=last))
            self.do()

    @rule(data=st.data(), how=st.sampled_from(["raises", "stops"]))
    def fail(self, data: st.DataObject, how: str) -> None:
        if self.endpoint.runs:
            run = data.draw(st.sampled_from(self.endpoint.runs))
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

    @rule()
    def die(self) -> None:
        self.do(self.endpoint.die)

    @rule(state=st.sampled_from(["starting", "ready", "ready", "draining"]))
    def become(self, state: EndpointState) -> None:
        self.do(lambda: self.endpoint.become(state))

    @invariant()
    def no_more_run_than_may(self) -> None:
        if not hasattr(self, "endpoint"):
            return
        slots = self.endpoint.card.slots
        assert self.endpoint.most <= self.endpoint.bound
        assert sum(self.dispatcher._running) == len(self.endpoint.runs)
        assert all(count >= 0 for count in self.dispatcher._running)
        # Those of the first tier alone never have more than the slots, whatever is preempted.
        assert self.dispatcher._running[0] <= slots

    @invariant()
    def who_has_not_ended_runs_or_waits(self) -> None:
        if not hasattr(self, "endpoint"):
            return
        running = sorted(prompt_of(run.job).removeprefix(LONG) for run in self.endpoint.runs)
        states = {"running": [], "queued": [], "done": [], "failed": [], "cancelled": []}
        for call in self.all:
            states[call.state].append(call.id)
        assert running == sorted(states["running"])
        dispatcher = self.dispatcher
        waiting = len(dispatcher._policy) + len(dispatcher._prefixes._waiting)
        assert waiting + len(dispatcher._returning) == len(states["queued"])
        assert len(dispatcher._tickets) == len(states["running"]) + len(states["queued"])

    @invariant()
    def no_slot_is_free_while_one_waits_that_may_run(self) -> None:
        if not hasattr(self, "endpoint") or self.endpoint.state != "ready":
            return
        if self.dispatcher._tiers_with_room(self.endpoint.card) == self.tiers:
            assert len(self.dispatcher._policy) == 0

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
                assert isinstance(call.error, EndpointLostError | EngineError | DeadlineError)
                assert "it said how many" not in call.error.message

    def teardown(self) -> None:
        try:
            if hasattr(self, "endpoint"):
                self.loop.run_until_complete(self._finish())
        finally:
            self.loop.close()

    async def _unended(self) -> bool:
        await settle()
        return not all(call.ended for call in self.all)

    async def _finish(self) -> None:
        """The endpoint comes back and answers: everybody who waits has an end."""
        self.endpoint.become("ready")
        while await self._unended():
            assert self.endpoint.runs
            for run in self.endpoint.runs:
                run.steps.put_nowait(said(ANSWER[run.said :]))
        for found in await asyncio.gather(*self.readers, return_exceptions=True):
            assert isinstance(found, Exception) or found == ANSWER
        await settle()
        assert nothing_left(self.dispatcher)
        await self.dispatcher.aclose()


TestDispatching = Dispatching.TestCase
TestDispatching.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
