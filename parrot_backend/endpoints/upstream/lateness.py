"""How late this process itself is: what times out while it stands still tells nothing of others."""

import asyncio
import time
from types import TracebackType

_TICK = 0.05


class Lateness:
    """`seconds`: the longest for which the event loop stood still, from the entry to the exit."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._ticked = 0.0
        self._ticking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Lateness":
        self._ticked = time.monotonic()
        self._ticking = asyncio.create_task(self._tick(), name="measure the loop's lateness")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._look()
        if self._ticking is not None:
            self._ticking.cancel()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            self._look()

    def _look(self) -> None:
        now = time.monotonic()
        self.seconds, self._ticked = max(self.seconds, now - self._ticked - _TICK), now
