"""Expectations: what calls that wait for their inputs will begin with is made ready by the endpoint."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from parrot_backend.endpoints.base import Endpoint
from parrot_backend.program.render import render_beginning
from parrot_backend.serving.call import Call
from parrot_backend.wire.errors import ParrotError
from parrot_backend.wire.messages import VariableSegment
from parrot_backend.wire.protocol import SemanticCall

# Two values that an input may have. The tokens that both prompts begin with, every one begins with.
_EXAMPLES = "0", "a"
# The beginnings that one session has made ready at once; those of calls that come later can wait.
_MOST = 256


class _Beginning:
    """What calls begin with; it is expected as long as any of them waits."""

    def __init__(self, forget: Callable[[], None]) -> None:
        self.forget = forget
        self.calls: set[Call] = set()


class Expectations:
    """Those of one session. A call's begins anew when one more of its leading inputs is there.

    Args:
        endpoint: is told.
        tenant: whose prefixes they are.
        values: of the session's variables.
    """

    def __init__(self, endpoint: Endpoint, tenant: str, values: Mapping[str, str]) -> None:
        self._endpoint = endpoint
        self._tenant = tenant
        self._values = values
        self._planned: dict[Call, tuple[SemanticCall, Sequence[str]]] = {}
        self._stops: dict[str, list[Call]] = {}
        self._beginnings: dict[str, _Beginning] = {}
        self._of_call: dict[Call, str] = {}
        self._new: deque[Call] = deque()
        self._task: asyncio.Task[None] | None = None

    def add(self, calls: Iterable[tuple[Call, SemanticCall]], texts: Sequence[str]) -> None:
        """Expect calls of one program, which has shared `texts`."""
        if not self._endpoint.card.pins:
            return
        for call, planned in calls:
            self._planned[call] = planned, texts
            self._new.append(call)
        self._tell()

    def settled(self, variable: str) -> None:
        """A variable has its value, so that some prompts are known further."""
        if calls := self._stops.pop(variable, None):
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
                if call.state == "waiting" and len(self._of_call) < _MOST:
                    with suppress(ParrotError):  # the call itself will say what is wrong with it
                        self._expect(call)
                else:
                    self._planned.pop(call, None)
                await asyncio.sleep(0)
        finally:
            self._task = None

    def _expect(self, call: Call) -> None:
        planned, texts = self._planned[call]
        examples = [render_beginning(planned, self._values, e, texts) for e in _EXAMPLES]
        key, before = examples[0].claim_key(), self._of_call.get(call)
        if (beginning := self._beginnings.get(key)) is None:
            forget = self._endpoint.expect(examples, self._tenant)
            beginning = self._beginnings[key] = _Beginning(forget)
        beginning.calls.add(call)
        self._of_call[call] = key
        if (stop := self._stop(planned)) is not None:
            self._stops.setdefault(stop, []).append(call)
        if before is None:
            call.at_end(lambda: self._forget(call))
        elif before != key:
            self._leave(call, before)

    def _stop(self, planned: SemanticCall) -> str | None:
        """The first variable of a prompt that has no value yet."""
        segments = (segment for message in planned.messages for segment in message.content)
        names = (s.name for s in segments if isinstance(s, VariableSegment))
        return next((name for name in names if name not in self._values), None)

    def _forget(self, call: Call) -> None:
        self._planned.pop(call, None)
        self._leave(call, self._of_call.pop(call))

    def _leave(self, call: Call, key: str) -> None:
        beginning = self._beginnings[key]
        beginning.calls.discard(call)
        if not beginning.calls:
            del self._beginnings[key]
            beginning.forget()
