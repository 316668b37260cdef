"""`barrier`: a step that planning does not cross, so that nothing behind it starts ahead of the run."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.runnables import RunnableConfig, RunnableSerializable


class Barrier(RunnableSerializable[Any, Any]):
    """Hands on what it gets, chunk by chunk, and opens no run: callbacks do not see it."""

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """The input."""
        return input

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """The input."""
        return input

    def transform(
        self, input: Iterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """The input's chunks, as they come."""
        yield from input

    async def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """The input's chunks, as they come."""
        async for chunk in input:
            yield chunk


def barrier() -> Barrier:
    """A runnable that planning does not cross: `guard | barrier() | prompt | llm`.

    In a compiled chain, calls behind it are planned when the run has passed it. Without it a guard
    that raises is overtaken, where what it guards does not depend on what it gives: the prompt has
    left already.
    """
    return Barrier()
