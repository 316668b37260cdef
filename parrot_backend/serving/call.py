"""`Call`: one LLM request on its way, planned or not, and what it has produced so far.

    waiting -> queued <-> running -> done | failed | cancelled

It waits for its inputs, is queued for a place, and runs; where what ran it died, it is queued again.
`end` makes the last transition, whoever asks for it, and the first to ask decides.
"""

import asyncio
import time
from array import array
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from parrot_backend.endpoints.tool_calls import assembled
from parrot_backend.engines.base import Delta, FinishReason, TokenLogprobs
from parrot_backend.program.critical_path import AHEAD_SECONDS
from parrot_backend.serving.rank import Rank
from parrot_backend.serving.tenants import EVERYBODY, Tenant
from parrot_backend.wire.errors import ParrotError
from parrot_backend.wire.protocol import Objective
from parrot_backend.wire.text_protocol import LLMRequest
from parrot_backend.wire.tools import ToolCall
from parrot_backend.wire.views import AttemptView, CallState, CallView

_ENDS = frozenset({"done", "failed", "cancelled"})


class Owner(Protocol):
    """Who keeps book of calls. It is told of each step of theirs, and neither waits nor raises."""

    def moved(self, call: "Call", before: CallState) -> None:
        """The call's state is another. Where it has ended, the owner does what follows from that, and
        then has it told to the readers (`Call.tell_end`)."""
        ...

    def first_token(self, call: "Call") -> None:
        """The call has produced something."""
        ...

    def left(self, call: "Call") -> None:
        """The last reader has left before the end."""
        ...


class Call:
    """One generation that any number of readers follow from its first token.

    Belongs to one event loop. `request` is None until every input of a planned call is there; `draft`
    are the tokens of an answer that it is likely to repeat. It is `dependent` where the end of another
    call, and no client, made it ready.
    """

    def __init__(
        self,
        call_id: str,
        owner: Owner,
        request: LLMRequest | None = None,
        *,
        tenant: Tenant = EVERYBODY,
        output: str | None = None,
        inputs: Sequence[str] = (),
        concurrency: Iterable[str] = (),
    ) -> None:
        self.id = call_id
        self.request = request
        self.tenant = tenant
        self.output = output
        self.inputs = inputs
        self.concurrency = tuple(sorted(set(concurrency)))
        self.draft: Sequence[int] = ()
        self.objective: Objective = "latency"
        self.group: str | None = None
        self.group_size: int | None = None
        self.rank = Rank()
        self.created = time.time()
        self.queued: float | None = None
        self.dispatched: float | None = None
        self.started: float | None = None
        self.first_token: float | None = None
        self.finished: float | None = None
        self.state: CallState = "waiting"
        self.claimed_at: float | None = None
        self.dependent = False
        self.attempts = 0
        self.engine: str | None = None
        self.lost: list[AttemptView] = []
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.completion_tokens = 0
        self.finish_reason: FinishReason | None = None
        self.error: ParrotError | None = None
        self.readers = 0
        self.seen = False
        self._owner = owner
        self._deltas: list[Delta] = []
        self._at_end: list[Callable[[], None]] = []
        self._visible = 0
        self._told = False
        self._news: asyncio.Event | None = None

    @property
    def planned(self) -> bool:
        """Whether it came with a program, before anybody asked for it."""
        return self.output is not None

    @property
    def claimed(self) -> bool:
        """Whether a request was equal to it, and got it."""
        return self.claimed_at is not None

    @property
    def ahead(self) -> bool:
        """Whether the engine had it for a while when its request came; no dependent call is."""
        if self.dependent or self.claimed_at is None or self.dispatched is None:
            return False
        return self.claimed_at - self.dispatched > AHEAD_SECONDS

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.state in _ENDS

    @property
    def text(self) -> str:
        """What was generated so far."""
        return "".join(delta.text for delta in self._deltas)

    @property
    def tokens(self) -> Sequence[int]:
        """The tokens so far."""
        return array("I", (token for delta in self._deltas for token in delta.tokens))

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The tool calls so far; they are no part of the text."""
        return assembled(piece for delta in self._deltas for piece in delta.tool_calls)

    @property
    def logprobs(self) -> list[TokenLogprobs]:
        """Those of what was generated so far, where the request asks for them."""
        return [logprobs for delta in self._deltas for logprobs in delta.logprobs]

    # Its life

    def queue(self) -> None:
        """All its inputs are there, or what ran it has died: it wants a place."""
        if self.state != "queued":
            self.queued = self.queued or time.time()
            self._move("queued")

    def start(self, engine: str | None = None) -> None:
        """It has a place, on an engine; this is another attempt at it."""
        self.dispatched = self.dispatched or time.time()
        self.attempts += 1
        self.engine = engine
        self._move("running")

    def publish(self, delta: Delta) -> None:
        """Add what a step produced. Readers see it when this callback of the loop is over, and what
        says that the answer is finished when its end is told."""
        if self.ended:
            return
        if self.first_token is None:
            self.started, self.first_token = delta.started, time.time()
            self._owner.first_token(self)
        self.prompt_tokens = delta.prompt_tokens or self.prompt_tokens
        self.cached_tokens = delta.cached_tokens if delta.tells_cached else self.cached_tokens
        self.completion_tokens += len(delta.tokens) + delta.untold_tokens
        self.finish_reason = delta.finish_reason
        self._deltas.append(delta)
        if delta.finish_reason is None:
            self._visible = len(self._deltas)
            self._wake()

    def lose(self, reason: str) -> None:
        """The attempt is lost; another may follow."""
        self.lost.append(AttemptView(engine=self.engine or "", reason=reason))

    def restart(self) -> None:
        """Forget what it has produced, which nobody has seen."""
        self._deltas.clear()
        self._visible = self.completion_tokens = 0

    def end(self, state: CallState, error: ParrotError | None = None) -> None:
        """Nothing more will come. What has ended already stays as it is.

        The owner is told first, so that what becomes ready by this end is in the queue when the place
        of the call is free.
        """
        if self.ended:
            return
        self.error, self.finished = error, time.time()
        try:
            self._move(state)
        finally:  # whatever the owner does wrong, nothing stays held
            while self._at_end:
                self._at_end.pop()()

    def tell_end(self) -> None:
        """Let the readers see the end; they get the call's error where it has one."""
        self._visible, self._told = len(self._deltas), True
        self._wake()

    def at_end(self, act: Callable[[], None]) -> None:
        """Have something done when the call has ended; at once where it has."""
        if self.ended:
            act()
        else:
            self._at_end.append(act)

    def release(self) -> None:
        """Forget request and answer of a call that was told to whom it was for."""
        if self._told and not self.readers and (self.claimed or not self.planned):
            self.forget()

    def forget(self) -> None:
        """Forget request and answer of a call that has ended, and that nobody can ask for any more."""
        self.request, self.draft = None, ()
        self._deltas.clear()
        self._visible = 0

    # Its readers

    async def read(self) -> AsyncGenerator[Delta, None]:
        """Everything from the first token on.

        Raises:
            ParrotError: the call failed or was cancelled.
        """
        position = 0
        with self._reader():
            while position < self._visible or not self._told:
                if position == self._visible:
                    await self._more()
                else:
                    self.seen = True
                    yield self._deltas[position]
                    position += 1
        if self.error is not None:
            raise self.error

    async def wait(self) -> None:
        """Until its end is told, for who wants the answer as a whole, and has seen nothing before.

        Raises:
            ParrotError: the call failed or was cancelled.
        """
        with self._reader():
            while not self._told:
                await self._more()
        if self.error is not None:
            raise self.error

    @contextmanager
    def _reader(self) -> Iterator[None]:
        self.readers += 1
        try:
            yield
        finally:
            self.readers -= 1
            self.abandon()

    async def _more(self) -> None:
        self._news = self._news or asyncio.Event()
        await self._news.wait()

    def abandon(self) -> None:
        """Somebody leaves: the owner is told where nobody reads and the end is to come."""
        if not self.readers and not self.ended:
            self._owner.left(self)

    def view(self) -> CallView:
        """How it stands, as told to clients."""
        return CallView(
            id=self.id,
            state=self.state,
            planned=self.planned,
            claimed=self.claimed,
            dependent=self.dependent,
            output=self.output,
            inputs=list(self.inputs),
            objective=self.objective,
            group=self.group,
            path=self.rank.path,
            queued=self.queued,
            dispatched=self.dispatched,
            claimed_at=self.claimed_at,
            started=self.started,
            first_token=self.first_token,
            finished=self.finished,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            completion_tokens=self.completion_tokens,
            engine=self.engine,
            attempts=self.lost,
        )

    def _move(self, state: CallState) -> None:
        before, self.state = self.state, state
        self._owner.moved(self, before)

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None
