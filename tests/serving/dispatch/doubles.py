"""An endpoint whose every step is the test's, and an owner that keeps book."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace

from parrot_backend.endpoints.base import Card, EndpointState, Job
from parrot_backend.engines.base import Delta, EngineStats, ModelCard
from parrot_backend.serving.call import Call
from parrot_backend.serving.dispatch.dispatcher import Dispatcher
from parrot_backend.serving.dispatch.queue import Queue
from parrot_backend.serving.rank import Rank
from parrot_backend.serving.tenants import EVERYBODY, Tenant
from parrot_backend.wire.errors import (
    EndpointLostError,
    EngineError,
    ParrotError,
    UnavailableError,
)
from parrot_backend.wire.messages import ChatMessage
from parrot_backend.wire.protocol import ChatRequest
from parrot_backend.wire.text_protocol import LLMRequest
from parrot_backend.wire.views import CallState

MODEL = ModelCard("scripted", 1000)


def prompt_of(job: Job) -> str:
    assert isinstance(job.request, ChatRequest)
    return "".join(message.content for message in job.request.messages)


@dataclass(eq=False)
class Run:
    """A job that runs; what is put in `steps` is what it answers, and `said` is how much it has."""

    job: Job
    steps: asyncio.Queue[Delta | Exception | None] = field(default_factory=asyncio.Queue)
    said: int = 0


class StagedEndpoint:
    """Runs at most as many jobs as it said, and refuses more, as an engine without a queue would.

    Where it has a `script`, it answers by itself: the deltas for a job's prompt, each in its turn.
    """

    def __init__(
        self,
        slots: int = 1,
        script: Callable[[str], Sequence[Delta]] | None = None,
        *,
        refusal: ParrotError | None = None,
        tokens: Sequence[int] = (),
        **card: object,
    ) -> None:
        self.card = replace(Card(MODEL, slots), **card)
        self.refusal = refusal
        self.tokens = list(tokens)
        self.expected: list[str] = []
        self.closed = False
        self.state: EndpointState = "ready"
        self.why: str | None = None
        self.script = script
        self.runs: list[Run] = []
        self.started: list[str] = []
        self.jobs: list[Job] = []
        self.most = 0
        self._watchers: list[Callable[[], None]] = []

    async def start(self) -> None:
        if self.refusal is not None:
            raise self.refusal

    def watch(self, changed: Callable[[], None]) -> None:
        self._watchers.append(changed)

    def become(self, state: EndpointState) -> None:
        self.state = state
        for changed in self._watchers:
            changed()

    def die(self) -> None:
        """Everything that runs is lost."""
        runs, self.runs = self.runs, []
        for run in runs:
            run.steps.put_nowait(EndpointLostError("killed"))
        self.become("dead")

    @property
    def bound(self) -> int:
        return self.card.slots * (2 if self.card.preempts else 1)

    async def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        if self.state != "ready":
            raise EndpointLostError("not there")
        if len(self.runs) >= self.bound:
            raise EngineError("it said how many it runs")
        run = Run(job)
        self.runs.append(run)
        self.jobs.append(job)
        self.started.append(prompt_of(job))
        self.most = max(self.most, len(self.runs))
        try:
            for delta in self.script(prompt_of(job)) if self.script else ():
                await asyncio.sleep(0)
                yield delta
            while (step := await run.steps.get()) is not None:
                if isinstance(step, Exception):
                    raise step
                yield step
        finally:
            if run in self.runs:
                self.runs.remove(run)

    def run_of(self, prompt: str) -> Run:
        return next(run for run in self.runs if prompt_of(run.job) == prompt)

    def answer(self, prompt: str, text: str = "", *, last: bool = True) -> None:
        self.run_of(prompt).steps.put_nowait(said(text, last=last))

    async def tokenize(self, request: object) -> list[int]:
        if self.state != "ready":
            raise EndpointLostError("not there")
        return self.tokens

    def expect(self, examples: Sequence[LLMRequest], tenant: str) -> Callable[[], None]:
        prompt = "".join(message.content for message in examples[0].messages)
        self.expected.append(prompt)
        return lambda: self.expected.remove(prompt)

    def stats(self) -> EngineStats:
        return EngineStats(running=len(self.runs))

    def drain(self) -> None:
        self.become("draining")

    async def aclose(self) -> None:
        """What runs fails as that of a real one does."""
        self.closed = True
        runs, self.runs = self.runs, []
        for run in runs:
            run.steps.put_nowait(UnavailableError("closed"))
        self.become("dead")


def said(text: str, *, last: bool = True, prompt_tokens: int = 0) -> Delta:
    tokens = tuple(map(ord, text))
    return Delta(text, tokens, 0, "stop" if last else None, prompt_tokens=prompt_tokens)


class Book:
    """An owner; the states of each call, in order."""

    def __init__(self) -> None:
        self.states: dict[str, list[str]] = {}

    def moved(self, call: Call, before: CallState) -> None:
        self.states.setdefault(call.id, []).append(call.state)
        if call.ended:
            call.tell_end()

    def first_token(self, call: Call) -> None:
        pass

    def left(self, call: Call) -> None:
        call.end("cancelled")


def a_call(
    prompt: str,
    *,
    owner: Book | None = None,
    tenant: Tenant = EVERYBODY,
    rank: Rank | None = None,
    system: str = "",
    **parameters: object,
) -> Call:
    messages = [ChatMessage(role="user", content=prompt)]
    if system:
        messages.insert(0, ChatMessage(role="system", content=system))
    request = ChatRequest(messages=messages, **({"temperature": 0} | parameters))
    call = Call(prompt, owner or Book(), request, tenant=tenant)
    call.rank = rank or Rank()
    return call


def enter(dispatcher: Dispatcher, *calls: Call) -> None:
    for call in calls:
        dispatcher.admit(call.tenant, 1)
        dispatcher.track(call)
        dispatcher.enter(call)


async def settle(turns: int = 12) -> None:
    """Let what is ready in the loop run."""
    for _ in range(turns):
        await asyncio.sleep(0)


def waiting(dispatcher: Dispatcher) -> int:
    """Calls that are in a queue."""
    return sum(len(pool.queue) for pool in dispatcher._pools.values())


def nothing_left(dispatcher: Dispatcher) -> bool:
    """Whether all tables are empty, and no task runs but the test's own."""
    pools = dispatcher._pools.values()
    return not (
        dispatcher._held
        or any(pool.attempts for pool in pools)
        or any(is_left_in(pool.queue) for pool in pools)
        or any(any(seat.running) or seat.interactive for pool in pools for seat in pool.seats)
        or dispatcher._quotas._unfinished
        or asyncio.all_tasks() - {asyncio.current_task()}
    )


def is_left_in(queue: Queue) -> bool:
    """Whether any of a queue's tables holds something."""
    return bool(
        len(queue)
        or len(queue.policy)
        or len(queue.placement)
        or queue._parked
        or queue._roomless
        or queue._returning
    )
