"""`compile()`: the same runnable, with its calls handed to the backend before it asks for them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from contextvars import Context
from typing import Any, TypeVar, cast

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase
from pydantic import Field

from parrot_backend.protocol import Objective
from parrot_integrations.langchain import rules as rules  # registers them
from parrot_integrations.langchain.planner import Planner
from parrot_integrations.planning.explain import explain
from parrot_integrations.planning.session import OnSession, PlannedSession, aplanned, planned

logger = logging.getLogger(__name__)

Input = TypeVar("Input")
Output = TypeVar("Output")


class CompiledRunnable(RunnableBindingBase[Input, Output]):  # type: ignore[no-redef]
    """A runnable whose LLM calls are predicted from its input, submitted at once, and then claimed.

    The original runs natively, so results, callbacks, config, retries and errors are LangChain's own;
    a wrong prediction costs time, never correctness. It opens no run of its own.
    """

    objective: Objective = "latency"
    on_session: OnSession | None = Field(default=None, exclude=True)

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Serialize the original instead, and compile it again."""
        return False

    def explain(self, input: Input, **kwargs: Any) -> str:
        """What would be planned for an input: calls, variables, what is shared, and graph breaks.

        Nothing runs, and no callback fires.
        """
        return explain(self._plan([input], kwargs).plan)

    def invoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Output:
        """`invoke` of the original, planned."""
        with self._planned([input], kwargs) as context:
            return context.run(super().invoke, input, config, **kwargs)

    async def ainvoke(
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Output:
        """`ainvoke` of the original, planned."""
        async with self._aplanned([input], kwargs) as context:
            return await asyncio.create_task(
                super().ainvoke(input, config, **kwargs), context=context
            )

    def batch(
        self,
        inputs: list[Input],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Output]:
        """`batch` of the original; all inputs are one plan."""
        with self._planned(inputs, kwargs) as context:
            return context.run(
                super().batch, inputs, config, return_exceptions=return_exceptions, **kwargs
            )

    async def abatch(
        self,
        inputs: list[Input],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Output]:
        """`abatch` of the original; all inputs are one plan."""
        async with self._aplanned(inputs, kwargs) as context:
            return await asyncio.create_task(
                super().abatch(inputs, config, return_exceptions=return_exceptions, **kwargs),
                context=context,
            )

    def batch_as_completed(  # type: ignore[override]
        self, inputs: Sequence[Input], config: Any = None, **kwargs: Any
    ) -> Iterator[tuple[int, Output | Exception]]:
        """`batch_as_completed` of the original; all inputs are one plan."""
        run = super().batch_as_completed
        given = _without_batch_options(kwargs)
        return self._iterate(inputs, given, lambda: run(inputs, config, **kwargs))

    def abatch_as_completed(  # type: ignore[override]
        self, inputs: Sequence[Input], config: Any = None, **kwargs: Any
    ) -> AsyncIterator[tuple[int, Output | Exception]]:
        """`abatch_as_completed` of the original; all inputs are one plan."""
        run = super().abatch_as_completed
        given = _without_batch_options(kwargs)
        return self._aiterate(inputs, given, lambda: run(inputs, config, **kwargs))

    def stream(
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Output]:
        """`stream` of the original, planned."""
        run = super().stream
        return self._iterate([input], kwargs, lambda: run(input, config, **kwargs))

    def astream(
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Output]:
        """`astream` of the original, planned."""
        run = super().astream
        return self._aiterate([input], kwargs, lambda: run(input, config, **kwargs))

    def astream_events(  # type: ignore[override]
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """`astream_events` of the original, planned."""
        run = cast("Callable[..., AsyncIterator[Any]]", super().astream_events)
        return self._aiterate([input], {}, lambda: run(input, config, **kwargs))

    def _plan(self, inputs: Sequence[Input], kwargs: dict[str, Any]) -> Planner:
        planner = Planner()
        try:
            for value in inputs:
                planner.step(self.bound, value, {**self.kwargs, **kwargs})
        except Exception:
            # Whatever went wrong, the run must not notice: it never needs the plan.
            logger.exception("planning failed, running without a plan")
            return Planner()
        return planner

    def _planned(
        self, inputs: Sequence[Input], kwargs: dict[str, Any]
    ) -> AbstractContextManager[Context]:
        planner = self._plan(inputs, kwargs)
        return planned(planner.client, planner.plan, self.objective, self.on_session)

    def _aplanned(
        self, inputs: Sequence[Input], kwargs: dict[str, Any]
    ) -> AbstractAsyncContextManager[Context]:
        planner = self._plan(inputs, kwargs)
        return aplanned(planner.client, planner.plan, self.objective, self.on_session)

    def _iterate(
        self, inputs: Sequence[Input], kwargs: dict[str, Any], start: Callable[[], Iterator[Any]]
    ) -> Iterator[Any]:
        """The session is active while the original works, not while the consumer has the item."""
        with self._planned(inputs, kwargs) as context:
            iterator = context.run(start)
            try:
                while (item := context.run(next, iterator, _END)) is not _END:
                    yield item
            finally:
                context.run(_close, iterator)

    async def _aiterate(
        self,
        inputs: Sequence[Input],
        kwargs: dict[str, Any],
        start: Callable[[], AsyncIterator[Any]],
    ) -> AsyncIterator[Any]:
        async with self._aplanned(inputs, kwargs) as context:
            iterator = context.run(start)
            try:
                while (item := await _anext(iterator, context)) is not _END:
                    yield item
            finally:
                await asyncio.create_task(_aclose(iterator), context=context)


_END: Any = object()


async def _anext(iterator: AsyncIterator[Any], context: Context) -> Any:
    async def step() -> Any:
        return await anext(iterator, _END)

    return await asyncio.create_task(step(), context=context)


def _close(iterator: Iterator[Any]) -> None:
    if hasattr(iterator, "close"):
        iterator.close()


async def _aclose(iterator: AsyncIterator[Any]) -> None:
    if hasattr(iterator, "aclose"):
        await iterator.aclose()


def _without_batch_options(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name != "return_exceptions"}


def compile(
    runnable: Runnable[Input, Output],
    *,
    objective: Objective = "latency",
    on_session: Callable[[PlannedSession], None] | None = None,
) -> CompiledRunnable[Input, Output]:
    """Compile a runnable: its LLM calls are planned per input and started before it asks for them.

    Args:
        runnable: any runnable; what can't be planned is a graph break and runs as always.
        objective: what the reader of the result wants: `latency`, `throughput`, `ttft` or `tpot`.
        on_session: called with each run's session when it opens, for progress and inspection.
    """
    return CompiledRunnable(bound=runnable, objective=objective, on_session=on_session)
