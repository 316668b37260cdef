"""`Ahead`: prefill on engines that have no word for it, by requests for one token over what is known.

Where nothing else wants the slot, the beginning of what is expected is sent as a prompt of its own.
What comes behind it in the real prompt differs: only what is cached of the beginning is of use.
"""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from parrot_backend.endpoints.upstream.counts import Counts
from parrot_backend.endpoints.upstream.slots import common_length, text_of
from parrot_backend.engines.base import Delta
from parrot_backend.wire.errors import ParrotError
from parrot_backend.wire.protocol import ChatRequest
from parrot_backend.wire.text_protocol import LLMRequest, PromptRequest

logger = logging.getLogger(__name__)

SHORTEST = 1000
"""Characters, some 250 tokens: less than that is computed quicker than it is asked for."""
_MOST_WAITING = 256
_ONE_TOKEN = {
    "max_tokens": 1,
    "temperature": 0.0,
    "response_format": None,
    "structured_outputs": None,
    "logprobs": None,
    "top_logprobs": None,
    "stop": None,
}


@dataclass(slots=True, eq=False)
class _Hint:
    request: LLMRequest
    tenant: str
    text: str
    wanted: int = 1
    computed: int = 0
    used: bool = False
    number: int = field(default_factory=itertools.count().__next__)


class Ahead:
    """Computes one beginning at a time.

    Args:
        run: runs a request to its end, and gives the last delta.
        has_room: whether a slot is idle.
    """

    def __init__(
        self,
        run: Callable[[LLMRequest, str], Awaitable[Delta]],
        has_room: Callable[[], bool],
        counts: Counts,
    ) -> None:
        self._run = run
        self._has_room = has_room
        self._counts = counts
        self._waiting: list[_Hint] = []
        self._known: dict[tuple[str, str], _Hint] = {}
        self._task: asyncio.Task[None] | None = None

    def expect(self, examples: Sequence[LLMRequest], tenant: str) -> Callable[[], None]:
        """See `Endpoint.expect`; equal beginnings are computed once."""
        request = beginning_of(examples)
        if request is None or len(self._known) >= _MOST_WAITING:
            return lambda: None
        text = text_of(request).rstrip("\0")
        if len(text) < SHORTEST:
            return lambda: None
        hint = self._known.get((tenant, text))
        if hint is None:
            hint = self._known[tenant, text] = _Hint(request, tenant, text)
            self._waiting.append(hint)
            self.go_on()
        else:
            hint.wanted += 1
        return self._forgetter(hint)

    async def begins(self, request: LLMRequest, tenant: str) -> None:
        """A real job comes, and needs the slot that we may be using; what it computes itself is not
        computed here any more."""
        if not self._known:
            return
        text = text_of(request)
        for hint in list(self._waiting):
            if hint.tenant == tenant and text.startswith(hint.text):
                self._waiting.remove(hint)
        if (task := self._task) is not None and not self._has_room():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def ended(self, request: LLMRequest, tenant: str, last: Delta) -> None:
        """It has ended: what it found computed was worth computing."""
        text = text_of(request) if self._known else ""
        for hint in self._known.values():
            used = min(hint.computed, last.cached_tokens)
            same = hint.tenant == tenant and text.startswith(hint.text)
            if used and same and not hint.used:
                hint.used = True
                self._counts.ahead(used=used)
        self.go_on()

    def go_on(self) -> None:
        """Compute the next one, if there is room."""
        if self._task is None and self._waiting and self._has_room():
            self._task = asyncio.create_task(self._compute(self._waiting.pop(0)), name="ahead")
            self._task.add_done_callback(self._done)

    async def aclose(self) -> None:
        """Stop."""
        self._waiting.clear()
        if (task := self._task) is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _compute(self, hint: _Hint) -> None:
        try:
            last = await self._run(hint.request, hint.tenant)
        except ParrotError as error:  # who asks for it in earnest is told
            logger.debug("nothing is computed ahead: %s", error.message)
            return
        hint.computed = max(last.prompt_tokens - last.cached_tokens, 0)
        self._counts.ahead(prefilled=hint.computed)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("computing ahead failed", exc_info=error)
        self.go_on()

    def _forgetter(self, hint: _Hint) -> Callable[[], None]:
        forgotten = False

        def forget() -> None:
            nonlocal forgotten
            if not forgotten:
                forgotten = True
                self._forget(hint)

        return forget

    def _forget(self, hint: _Hint) -> None:
        hint.wanted -= 1
        if hint.wanted:
            return
        del self._known[hint.tenant, hint.text]
        if hint in self._waiting:
            self._waiting.remove(hint)
        if hint.computed and not hint.used:
            self._counts.ahead(wasted=hint.computed)


def beginning_of(examples: Sequence[LLMRequest]) -> LLMRequest | None:
    """A request for one token whose prompt is what the prompts of all examples begin with."""
    if not examples:
        return None
    chats = [example for example in examples if isinstance(example, ChatRequest)]
    if len(chats) == len(examples):
        return _chat(chats)
    texts = [
        e.prompt for e in examples if isinstance(e, PromptRequest) and isinstance(e.prompt, str)
    ]
    if len(texts) < len(examples) or not (text := _common(texts)):
        return None
    return PromptRequest(prompt=text, max_tokens=1, temperature=0.0)


def _chat(chats: Sequence[ChatRequest]) -> ChatRequest | None:
    if any(chat.tools != chats[0].tools for chat in chats):
        return None
    columns = list(zip(*(chat.messages for chat in chats), strict=False))
    messages = [column[0] for column in takewhile(lambda c: all(m == c[0] for m in c), columns)]
    if len(messages) < len(columns):
        column = columns[len(messages)]
        text = _common([message.content for message in column])
        if text and all(message.role == column[0].role for message in column):
            messages.append(column[0].model_copy(update={"content": text, "tool_calls": None}))
    if not messages:
        return None
    return chats[0].model_copy(update={**_ONE_TOKEN, "messages": messages})


def _common(texts: Sequence[str]) -> str:
    shortest = min(common_length(texts[0], text) for text in texts)
    return texts[0][:shortest]
