"""The original runnable, with an observer around each of its steps.

An observer opens no run of its own: neither results nor callbacks nor errors show it. It hands on
what a step gives, and before the next step begins the plan has gone on from there.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import get_config_list

from parrot_integrations.langchain.compiling.observing.native import (
    MapIndices,
    ResolvedValues,
    RunObserver,
    current,
)
from parrot_integrations.langchain.compiling.planner import StepPath


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution of a step."""

    run: RunObserver
    place: StepPath
    elements: MapIndices | None
    config: RunnableConfig

    def entered(self, value: Any = None) -> ResolvedValues:
        """What its beginning settles; `value` is its input, where that is given whole."""
        return self.run.entered(self.place, self.elements, value)

    def left(self, value: Any) -> ResolvedValues:
        """What its value settles."""
        return self.run.left(self.place, self.elements, value)

    def chunks(self, iterator: Iterator[Any], value: Any = None) -> Iterator[Any]:
        """Hands chunks on, and reports their sum at the end; `value` as for `entered`."""
        self.run.settle(self.entered(value))
        seen = []
        try:
            for chunk in iterator:
                seen.append(chunk)
                yield chunk
        finally:
            close(iterator)
        self.run.settle(self.run.left_in_chunks(self.place, self.elements, seen))

    async def achunks(self, iterator: AsyncIterator[Any], value: Any = None) -> AsyncIterator[Any]:
        """As `chunks`."""
        await self.run.asettle(self.entered(value))
        seen = []
        try:
            async for chunk in iterator:
                seen.append(chunk)
                yield chunk
        finally:
            await aclose(iterator)
        await self.run.asettle(self.run.left_in_chunks(self.place, self.elements, seen))


class Observed(RunnableBindingBase[Any, Any]):  # type: ignore[no-redef]
    """A step with an observer around it.

    `is_element`: it is run once for each element of a batch, and not the batch with it. `outer` is
    the place of the step that it is inside of, None for the root. `inner`: there are observers inside.
    """

    place: StepPath
    outer: StepPath | None = None
    is_element: bool = False
    inner: bool = False

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """`invoke` of the step."""
        step = self._execution(config)
        step.run.settle(step.entered(input))
        output = self.bound.invoke(input, step.config, **kwargs)
        step.run.settle(step.left(output))
        return output

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """`ainvoke` of the step."""
        step = self._execution(config)
        await step.run.asettle(step.entered(input))
        output = await self.bound.ainvoke(input, step.config, **kwargs)
        await step.run.asettle(step.left(output))
        return output

    def batch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        """`batch` of the step; all its values are planned on at once."""
        steps = self._executions(inputs, config)
        run = current()
        run.settle(_all_entered(steps, inputs))
        outputs = self.bound.batch(inputs, [step.config for step in steps], **kwargs)
        run.settle(_all_left(steps, outputs))
        return outputs

    async def abatch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        """`abatch` of the step; all its values are planned on at once."""
        steps = self._executions(inputs, config)
        run = current()
        await run.asettle(_all_entered(steps, inputs))
        outputs = await self.bound.abatch(inputs, [step.config for step in steps], **kwargs)
        await run.asettle(_all_left(steps, outputs))
        return outputs

    def batch_as_completed(
        self, inputs: Sequence[Any], config: Any = None, **kwargs: Any
    ) -> Iterator[tuple[int, Any]]:
        """`batch_as_completed` of the step."""
        configs = [step.config for step in self._executions(inputs, config)]
        yield from self.bound.batch_as_completed(inputs, configs, **kwargs)

    async def abatch_as_completed(
        self, inputs: Sequence[Any], config: Any = None, **kwargs: Any
    ) -> AsyncIterator[tuple[int, Any]]:
        """`abatch_as_completed` of the step."""
        configs = [step.config for step in self._executions(inputs, config)]
        async for item in self.bound.abatch_as_completed(inputs, configs, **kwargs):
            yield item

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """`stream` of the step."""
        step = self._execution(config)
        yield from step.chunks(self.bound.stream(input, step.config, **kwargs), input)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """`astream` of the step."""
        step = self._execution(config)
        chunks = self.bound.astream(input, step.config, **kwargs)
        async for chunk in step.achunks(chunks, input):
            yield chunk

    def transform(
        self, input: Iterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """`transform` of the step."""
        step = self._execution(config)
        yield from step.chunks(self.bound.transform(input, step.config, **kwargs))

    async def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """`atransform` of the step."""
        step = self._execution(config)
        async for chunk in step.achunks(self.bound.atransform(input, step.config, **kwargs)):
            yield chunk

    def astream_events(  # type: ignore[override]
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """`astream_events` of the step."""
        step = self._execution(config)
        return cast("AsyncIterator[Any]", self.bound.astream_events(input, step.config, **kwargs))

    def _execution(self, config: RunnableConfig | None, index: int = 0) -> Execution:
        run = current()
        elements = self._elements(run, config, index)
        if elements is not None and self.inner:
            config = run.named(config, getattr(self.bound, "config", None), self.place, elements)
        return Execution(run, self.place, elements, config or RunnableConfig())

    def _elements(
        self, run: RunObserver, config: RunnableConfig | None, index: int
    ) -> MapIndices | None:
        if self.outer is None:
            around: MapIndices | None = ()
        elif (handed := run.handed(config, self.outer)) is not None:
            return handed
        else:
            around = run.inherited(config, self.outer)
        return (*around, index) if around is not None and self.is_element else around

    def _executions(self, inputs: Sequence[Any], config: Any) -> list[Execution]:
        configs = get_config_list(config, len(inputs))
        return [self._execution(config, index) for index, config in enumerate(configs)]


class ObservedMapper(Observed):  # type: ignore[no-redef]
    """A mapper, whose steps `RunnableAssign` asks for."""

    @property
    def steps__(self) -> dict[str, Runnable[Any, Any]]:
        """The mapper's steps."""
        return dict(self.bound.steps__)  # type: ignore[attr-defined]


def _all_entered(steps: Iterable[Execution], inputs: Iterable[Any]) -> ResolvedValues:
    pairs = zip(steps, inputs, strict=True)
    return [settled for step, value in pairs for settled in step.entered(value)]


def _all_left(steps: Iterable[Execution], outputs: Iterable[Any]) -> ResolvedValues:
    pairs = zip(steps, outputs, strict=True)
    return [settled for step, output in pairs for settled in step.left(output)]


def close(iterator: Iterator[Any]) -> None:
    """End an iterator that may be a generator."""
    if hasattr(iterator, "close"):
        iterator.close()


async def aclose(iterator: AsyncIterator[Any]) -> None:
    """End an iterator that may be an async generator."""
    if hasattr(iterator, "aclose"):
        await iterator.aclose()
