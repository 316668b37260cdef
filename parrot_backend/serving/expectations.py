"""Expectations: what calls that wait for their inputs will begin with is kept by the engine."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress

from parrot_backend.program.render import render_beginning
from parrot_backend.serving.call import Call
from parrot_backend.serving.dispatcher import Dispatcher
from parrot_backend.wire.errors import ParrotError
from parrot_backend.wire.protocol import SemanticCall

# Two values that an input may have. The tokens that both prompts begin with, every one begins with.
_EXAMPLES = "0", "a"


class Expectations:
    """Those of one session; each lasts until its call has ended.

    Args:
        dispatcher: knows the engine and how it writes prompts.
        tenant: whose prefixes they are.
    """

    def __init__(self, dispatcher: Dispatcher, tenant: str) -> None:
        self._dispatcher = dispatcher
        self._tenant = tenant
        self._tasks: set[asyncio.Task[None]] = set()

    def add(
        self, calls: Mapping[Call, SemanticCall], values: Mapping[str, str], texts: Sequence[str]
    ) -> None:
        """Expect calls of one program, with its shared texts and the values that are there already."""
        task = asyncio.create_task(self._tell(calls, values, texts), name="expectations")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(
        self, calls: Mapping[Call, SemanticCall], values: Mapping[str, str], texts: Sequence[str]
    ) -> None:
        """Render and encode where no submission waits for it, and only calls that are yet to start."""
        for call, planned in calls.items():
            if call.state != "waiting":
                continue
            with suppress(ParrotError):  # the call itself will say what is wrong with it
                examples = [render_beginning(planned, values, e, texts) for e in _EXAMPLES]
                call.at_end(self._dispatcher.endpoint.expect(examples, self._tenant))
            await asyncio.sleep(0)
