"""An engine whose steps take no time of their own, for what everything around an engine costs."""

import asyncio
import time
from collections.abc import AsyncGenerator

from parrot_backend.engines.base import Delta, GenerationRequest
from tests.doubles import ScriptedEngine


class SteppingEngine(ScriptedEngine):
    """Gives every job a token in each step, and each step ends when all of them have theirs.

    With a `period`, steps begin so many seconds apart. A delta's `started` is its step's beginning.
    """

    def __init__(self, period: float) -> None:
        super().__init__()
        self._period = period
        self._began = 0.0
        self._step = asyncio.Event()
        self._stepping: asyncio.Task[None] | None = None

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """Tokens without end, up to the most that are wanted."""
        self.running += 1
        if self._stepping is None:
            self._stepping = asyncio.create_task(self._steps())
        try:
            for left in range(request.sampling.max_tokens or 1, 0, -1):
                await self._step.wait()
                reason = "length" if left == 1 else None
                yield Delta("word ", (left,), 0, reason, started=self._began)
        finally:
            self.running -= 1

    async def _steps(self) -> None:
        while True:
            await asyncio.sleep(self._period)
            self._began = time.time()
            step, self._step = self._step, asyncio.Event()
            step.set()

    async def aclose(self) -> None:
        """Stop stepping."""
        if self._stepping is not None:
            self._stepping.cancel()
