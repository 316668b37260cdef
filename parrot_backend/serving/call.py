"""`Call`: one LLM request on its way, planned or not, and what it has produced so far."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable

from parrot_backend.endpoints.tool_calls import assembled
from parrot_backend.engines.base import Delta, FinishReason, TokenLogprobs
from parrot_backend.program.critical_path import AHEAD_SECONDS
from parrot_backend.wire.errors import ParrotError
from parrot_backend.wire.protocol import Objective
from parrot_backend.wire.text_protocol import LLMRequest
from parrot_backend.wire.tools import ToolCall
from parrot_backend.wire.views import CallState, CallView


class Call:
    """One generation that any number of readers follow from its first token.

    Belongs to one event loop. `request` is None until every input of a planned call is there; `draft`
    are the tokens of an answer that it is likely to repeat. It is `dependent` where the end of another
    call, and no client, made it ready.
    """

    def __init__(
        self,
        call_id: str,
        request: LLMRequest | None = None,
        *,
        output: str | None = None,
        inputs: list[str] | None = None,
        concurrency: Iterable[str] = (),
    ) -> None:
        self.id = call_id
        self.request = request
        self.output = output
        self.inputs = inputs or []
        self.concurrency = tuple(sorted(set(concurrency)))
        self.draft: list[int] = []
        self.objective: Objective = "latency"
        self.group: str | None = None
        self.path = 1
        self.priority = 0
        self.created = time.time()
        self.queued: float | None = None
        self.dispatched: float | None = None
        self.started: float | None = None
        self.first_token: float | None = None
        self.finished: float | None = None
        self.state: CallState = "waiting"
        self.claimed_at: float | None = None
        self.dependent = False
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.completion_tokens = 0
        self.finish_reason: FinishReason | None = None
        self.error: ParrotError | None = None
        self.on_abandoned: Callable[[Call], None] | None = None
        self._deltas: list[Delta] = []
        self._at_end: list[Callable[[], None]] = []
        self.readers = 0
        self._news = asyncio.Event()

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
        return self.state in ("done", "failed", "cancelled")

    @property
    def text(self) -> str:
        """What was generated so far."""
        return "".join(delta.text for delta in self._deltas)

    @property
    def tokens(self) -> list[int]:
        """The tokens so far."""
        return [token for delta in self._deltas for token in delta.tokens]

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The tool calls so far; they are no part of the text."""
        return assembled(piece for delta in self._deltas for piece in delta.tool_calls)

    @property
    def logprobs(self) -> list[TokenLogprobs]:
        """Those of what was generated so far, where the request asks for them."""
        return [logprobs for delta in self._deltas for logprobs in delta.logprobs]

    def publish(self, delta: Delta) -> None:
        """Add what a step produced; readers see it when this callback of the loop is over."""
        if self.first_token is None:
            self.started, self.first_token = delta.started, time.time()
        self.prompt_tokens, self.cached_tokens = delta.prompt_tokens, delta.cached_tokens
        self.completion_tokens += len(delta.tokens)
        self.finish_reason = delta.finish_reason
        self._deltas.append(delta)
        self._wake()

    def end(self, state: CallState, error: ParrotError | None = None) -> None:
        """Nothing more will come; readers get `error` where there is one."""
        self.state, self.error, self.finished = state, error, time.time()
        self._wake()
        while self._at_end:
            self._at_end.pop()()

    def at_end(self, act: Callable[[], None]) -> None:
        """Have something done when the call has ended; at once where it has."""
        if self.ended:
            act()
        else:
            self._at_end.append(act)

    async def read(self) -> AsyncGenerator[Delta, None]:
        """Everything from the first token on.

        Leaving before the end is told to `on_abandoned` when nobody else is reading.

        Raises:
            ParrotError: the call failed or was cancelled.
        """
        self.readers += 1
        position = 0
        try:
            while position < len(self._deltas) or not self.ended:
                if position == len(self._deltas):
                    await self._news.wait()
                else:
                    yield self._deltas[position]
                    position += 1
        finally:
            self.readers -= 1
            self.abandon()
        if self.error is not None:
            raise self.error

    def abandon(self) -> None:
        """Somebody leaves: it is told to `on_abandoned` where nobody reads and the end is to come."""
        if not self.readers and not self.ended and self.on_abandoned is not None:
            self.on_abandoned(self)

    def view(self) -> CallView:
        """How it stands, as told to clients."""
        return CallView(
            id=self.id,
            state=self.state,
            planned=self.planned,
            claimed=self.claimed,
            dependent=self.dependent,
            output=self.output,
            inputs=self.inputs,
            objective=self.objective,
            group=self.group,
            path=self.path,
            queued=self.queued,
            dispatched=self.dispatched,
            claimed_at=self.claimed_at,
            started=self.started,
            first_token=self.first_token,
            finished=self.finished,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            completion_tokens=self.completion_tokens,
        )

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
