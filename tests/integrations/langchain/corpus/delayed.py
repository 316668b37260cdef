"""An engine that takes its time."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from parrot_backend.engines.base import Delta, GenerationRequest
from tests.doubles import ScriptedEngine
from tests.integrations.langchain.corpus.script import script


class DelayedEngine(ScriptedEngine):
    """The corpus's model, each of whose answers begins `delay` seconds after it was asked for."""

    def __init__(self, delay: float) -> None:
        super().__init__(script)
        self._delay = delay

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        await asyncio.sleep(self._delay)
        async with aclosing(super().generate(request)) as deltas:
            async for delta in deltas:
                yield delta
