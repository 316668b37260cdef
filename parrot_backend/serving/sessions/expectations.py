"""Expectations: what calls that wait for their inputs will begin with is made ready by an engine."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

from parrot_backend.program.render import render_beginning, rendered_length
from parrot_backend.serving.call import Call
from parrot_backend.serving.dispatch.dispatcher import Dispatcher
from parrot_backend.serving.tenants import Tenant
from parrot_backend.wire.errors import ParrotError
from parrot_backend.wire.messages import VariableSegment
from parrot_backend.wire.protocol import SemanticCall

# Two values that an input may have. The tokens that both prompts begin with, every one begins with.
_EXAMPLES = "0", "a"
# The calls of one session whose beginnings are made ready at once.
_MOST = 256
_GROWTH = 1.25


class _Beginning:
    """What calls begin with; it is expected as long as any of them waits."""

    def __init__(self, forget: Callable[[], None]) -> None:
        self.forget = forget
        self.calls: set[Call] = set()


class _Prompt:
    """How far the prompt of a call is known: `characters` of it, up to the variable `stop`.

    Its segments are gone through once, however often one more of its variables is there.
    """

    def __init__(self, planned: SemanticCall, texts: Sequence[str]) -> None:
        self.planned = planned
        self.texts = texts
        self.characters = 0
        self.told = -1
        self.stop: str | None = None
        self._rest = (segment for message in planned.messages for segment in message.content)

    def advance(self, values: Mapping[str, str]) -> None:
        """Go on to the next variable that has no value."""
        if self.stop is not None:
            self.characters += len(values[self.stop])
        self.stop = None
        for segment in self._rest:
            if isinstance(segment, VariableSegment) and segment.name not in values:
                self.stop = segment.name
                return
            self.characters += rendered_length([segment], values, self.texts)

    @property
    def worth_telling(self) -> bool:
        """Whether so much more is known that it is worth being told: in all, what is told is linear."""
        return self.characters > _GROWTH * self.told


class Expectations:
    """Those of one session. A call begins anew where much more of its prompt is known.

    Args:
        dispatcher: is told.
        tenant: whose prefixes they are.
        values: of the session's variables.
    """

    def __init__(self, dispatcher: Dispatcher, tenant: Tenant, values: Mapping[str, str]) -> None:
        self._dispatcher = dispatcher
        self._tenant = tenant
        self._values = values
        self._prompts: dict[Call, _Prompt] = {}
        self._stopped: dict[str, list[Call]] = {}
        self._beginnings: dict[str, _Beginning] = {}
        self._of_call: dict[Call, str] = {}
        self._later: deque[tuple[Call, SemanticCall, Sequence[str]]] = deque()
        self._new: deque[Call] = deque()
        self._task: asyncio.Task[None] | None = None

    def add(self, call: Call, planned: SemanticCall, texts: Sequence[str]) -> None:
        """Expect a call of a program, which has shared `texts`."""
        if self._dispatcher.pins(planned.model, self._tenant):
            self._later.append((call, planned, texts))
            self._take_more()

    def _take_more(self) -> None:
        """As many as may be expected at once; those that come later can wait."""
        while self._later and len(self._prompts) < _MOST:
            call, planned, texts = self._later.popleft()
            if call.state == "waiting":
                self._prompts[call] = _Prompt(planned, texts)
                call.at_end(partial(self._forget, call))
                self._new.append(call)
        self._tell()

    def settled(self, variable: str) -> None:
        """A variable is settled, so that some prompts are known further."""
        if calls := self._stopped.pop(variable, None):
            self._new.extend(calls)
            self._tell()

    def _tell(self) -> None:
        """Render and encode where no submission waits for it."""
        if self._new and self._task is None:
            self._task = asyncio.create_task(self._work(), name="expectations")

    async def _work(self) -> None:
        try:
            while self._new:
                call = self._new.popleft()
                if call.state == "waiting":
                    with suppress(ParrotError):  # the call itself will say what is wrong with it
                        self._go_on(call, self._prompts[call])
                await asyncio.sleep(0)
        finally:
            self._task = None

    def _go_on(self, call: Call, prompt: _Prompt) -> None:
        prompt.advance(self._values)
        if prompt.stop is not None:
            self._stopped.setdefault(prompt.stop, []).append(call)
            if prompt.worth_telling:
                prompt.told = prompt.characters
                self._expect(call, prompt)

    def _expect(self, call: Call, prompt: _Prompt) -> None:
        """What is known longer is told before what was is forgotten, and so takes it over."""
        examples = [
            render_beginning(prompt.planned, self._values, e, prompt.texts) for e in _EXAMPLES
        ]
        key, before = examples[0].claim_key(), self._of_call.get(call)
        if (beginning := self._beginnings.get(key)) is None:
            forget = self._dispatcher.expect(examples, self._tenant)
            beginning = self._beginnings[key] = _Beginning(forget)
        beginning.calls.add(call)
        self._of_call[call] = key
        if before is not None and before != key:
            self._leave(call, before)

    def _forget(self, call: Call) -> None:
        del self._prompts[call]
        if (key := self._of_call.pop(call, None)) is not None:
            self._leave(call, key)
        self._take_more()

    def _leave(self, call: Call, key: str) -> None:
        beginning = self._beginnings[key]
        beginning.calls.discard(call)
        if not beginning.calls:
            del self._beginnings[key]
            beginning.forget()
