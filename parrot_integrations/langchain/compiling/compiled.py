"""`compile()`: the same runnable, with its calls handed to the backend before it asks for them."""

import asyncio
import logging
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig, ensure_config
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import get_config_list
from pydantic import Field, PrivateAttr

from parrot_backend.wire.protocol import Objective
from parrot_integrations.langchain.compiling import rules as rules  # registers them
from parrot_integrations.langchain.compiling.explaining import Explaining
from parrot_integrations.langchain.compiling.idle import Idle
from parrot_integrations.langchain.compiling.observing.observed import Observed
from parrot_integrations.langchain.compiling.observing.rebuilt import observed
from parrot_integrations.langchain.compiling.planner import Planner, StepContext, rule
from parrot_integrations.langchain.compiling.running import (
    INPUT,
    CompiledRun,
    adrawn,
    ainput_chunks,
    drawn,
    input_chunks,
    outside,
)
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.session import OnSession
from parrot_integrations.planning.values import Break, BreakError, Unknown, is_big

if TYPE_CHECKING:
    from langgraph.pregel import Pregel

logger = logging.getLogger(__name__)

Graph = TypeVar("Graph", bound="Pregel[Any, Any, Any, Any]")
Input = TypeVar("Input")
Output = TypeVar("Output")

_BATCH_OPTIONS = {"return_exceptions"}


class CompiledRunnable(Explaining, RunnableBindingBase[Input, Output]):  # type: ignore[no-redef]
    """A runnable whose LLM calls are predicted from its input, submitted at once, and then claimed.

    The original runs natively, so results, callbacks, config, retries and errors are LangChain's own;
    a wrong prediction costs time, never correctness. It opens no run of its own. Behind a step that
    can't be planned, the plan goes on as soon as that step's output is there.
    """

    objective: Objective | None = None
    ahead: bool = True
    on_session: OnSession | None = Field(default=None, exclude=True)
    _observed: tuple[Any, Observed] | None = PrivateAttr(default=None)
    _idle: tuple[Any, Idle] | None = PrivateAttr(default=None)

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Serialize the original instead, and compile it again."""
        return False

    def invoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Output:
        """`invoke` of the original, planned."""
        with self._run([input], config, kwargs) as run, run.active():
            output: Output = run.native.invoke(input, config, **kwargs)
            return output

    async def ainvoke(
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Output:
        """`ainvoke` of the original, planned."""
        with await self._arun([input], config, kwargs) as run, run.active():
            output: Output = await run.native.ainvoke(input, config, **kwargs)
            return output

    def batch(
        self,
        inputs: list[Input],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        **kwargs: Any,
    ) -> list[Output]:
        """`batch` of the original; all inputs are one plan."""
        configs = get_config_list(config, len(inputs)) if inputs else []
        with self._run(inputs, configs, kwargs) as run, run.active():
            return run.native.batch(inputs, configs, **kwargs)

    async def abatch(
        self,
        inputs: list[Input],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        **kwargs: Any,
    ) -> list[Output]:
        """`abatch` of the original; all inputs are one plan."""
        configs = get_config_list(config, len(inputs)) if inputs else []
        with await self._arun(inputs, configs, kwargs) as run, run.active():
            return await run.native.abatch(inputs, configs, **kwargs)

    def batch_as_completed(  # type: ignore[override]
        self, inputs: Sequence[Input], config: Any = None, **kwargs: Any
    ) -> Iterator[tuple[int, Output | Exception]]:
        """`batch_as_completed` of the original; all inputs are one plan."""
        configs = get_config_list(config, len(inputs)) if inputs else []
        yield from self._iterate(
            self._run(inputs, configs, kwargs),
            lambda native: native.batch_as_completed(inputs, configs, **kwargs),
        )

    def abatch_as_completed(  # type: ignore[override]
        self, inputs: Sequence[Input], config: Any = None, **kwargs: Any
    ) -> AsyncIterator[tuple[int, Output | Exception]]:
        """`abatch_as_completed` of the original; all inputs are one plan."""
        configs = get_config_list(config, len(inputs)) if inputs else []
        return self._aiterate(
            lambda: self._arun(inputs, configs, kwargs),
            lambda native: native.abatch_as_completed(inputs, configs, **kwargs),
        )

    def stream(
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Output]:
        """`stream` of the original, planned."""
        run = self._run([input], config, kwargs)
        yield from self._iterate(run, lambda native: native.stream(input, config, **kwargs))

    def astream(
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Output]:
        """`astream` of the original, planned."""
        return self._aiterate(
            lambda: self._arun([input], config, kwargs),
            lambda native: native.astream(input, config, **kwargs),
        )

    def transform(
        self, input: Iterator[Input], config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Output]:
        """`transform` of the original, planned when the input has come to its end."""
        active = outside()
        yield from self._iterate(
            self._run([Unknown()], config, kwargs),
            lambda native: native.transform(input_chunks(active, input), config, **kwargs),
        )

    def atransform(
        self, input: AsyncIterator[Input], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Output]:
        """`atransform` of the original, planned when the input has come to its end."""
        active = outside()
        return self._aiterate(
            lambda: self._arun([Unknown()], config, kwargs),
            lambda native: native.atransform(ainput_chunks(active, input), config, **kwargs),
        )

    def astream_events(  # type: ignore[override]
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """`astream_events` of the original; planned but for version v3, whose result is no iterator."""
        if kwargs.get("version") == "v3":
            return cast("AsyncIterator[Any]", super().astream_events(input, config, **kwargs))
        return self._aiterate(
            lambda: self._arun([input], config, {}),
            lambda native: native.astream_events(input, config, **kwargs),
        )

    def plan(self, inputs: Sequence[Any], config: Any = None, kwargs: Any = None) -> Plan:
        """The plan for inputs, with their configurations or one for all; nothing is submitted."""
        try:
            return self._planned(inputs, config, {**self.kwargs, **(kwargs or {})})
        except Exception:
            # Whatever went wrong, the run must not notice: it never needs the plan.
            logger.exception("planning failed, running without a plan")
            return Plan()

    def _planned(self, inputs: Sequence[Any], config: Any, kwargs: Mapping[str, Any]) -> Plan:
        planner = Planner()
        if not self.ahead:
            planner.plan.stop(Break(self.get_name(), "is compiled with ahead=False"))
            return planner.plan
        configs = config if isinstance(config, list) else [config] * len(inputs)
        known = [self._known_config(of_input) for of_input in configs]
        context = StepContext({k: v for k, v in kwargs.items() if k not in _BATCH_OPTIONS})
        # LangChain itself takes the first one's for the whole batch.
        context = context.limited(planner.plan, known[0].get("max_concurrency") if known else None)
        for index, (value, of_input) in enumerate(zip(inputs, known, strict=True)):
            if isinstance(value, Unknown):
                planner.plan.unknowns[INPUT, (index,)] = value
            own = replace(context, configurable=of_input["configurable"]).element(index)
            planner.step(self.bound, value, own)
        return planner.plan

    def _wanted(self) -> Objective | None:
        return self.objective

    def _watched(self, on_session: OnSession) -> Runnable[Any, Any]:
        return self.model_copy(update={"on_session": on_session})

    def _native(self) -> Runnable[Any, Any]:
        return self._bound_to(self.bound)

    def _known_config(self, config: RunnableConfig | None) -> RunnableConfig:
        """A configuration as the original will see it, in what planning looks at."""
        given: Any = {**self.config, **{k: v for k, v in (config or {}).items() if v is not None}}
        configurables = self.config.get("configurable"), given.get("configurable")
        if any(configurables):
            given["configurable"] = {
                k: v for each in configurables for k, v in (each or {}).items()
            }
        return ensure_config(given)

    def _bound_to(self, bound: Runnable[Any, Any]) -> Runnable[Any, Any]:
        return RunnableBinding(
            bound=bound,
            kwargs=self.kwargs,
            config=self.config,
            config_factories=self.config_factories,
        )

    def _run(self, inputs: Sequence[Any], config: Any, kwargs: Mapping[str, Any]) -> CompiledRun:
        try:
            idle = self._known_idle()
        except Exception:  # the run never needs it
            logger.exception("looking for what can't be planned failed")
            idle = Idle(None)
        plan = Plan() if idle.knows(inputs) else self.plan(inputs, config, kwargs)
        native = self._bound_to(self._observed_copy() if plan.open else self.bound)
        return CompiledRun(native, plan, self.objective, self.on_session, lambda: idle.note(inputs))

    async def _arun(
        self, inputs: Sequence[Any], config: Any, kwargs: Mapping[str, Any]
    ) -> CompiledRun:
        """As `_run`; planning that takes long leaves the event loop."""
        if is_big(inputs):
            return await asyncio.to_thread(self._run, inputs, config, kwargs)
        return self._run(inputs, config, kwargs)

    def _known_idle(self) -> Idle:
        """Made anew when anything is changed that decides what is planned and submitted."""
        of = self.bound, self.ahead
        if self._idle is None or any(a is not b for a, b in zip(self._idle[0], of, strict=True)):
            self._idle = of, Idle(self.bound)
        return self._idle[1]

    def __getstate__(self) -> dict[Any, Any]:
        """What is kept of runs stays here: it may hold what can't be pickled."""
        state = super().__getstate__()
        private = state.get("__pydantic_private__") or {}
        return {**state, "__pydantic_private__": dict.fromkeys(private)}

    def _observed_copy(self) -> Observed:
        if self._observed is None or self._observed[0] is not self.bound:
            self._observed = self.bound, observed(self.bound)
        return self._observed[1]

    def _iterate(
        self, run: CompiledRun, start: Callable[[Runnable[Any, Any]], Iterator[Any]]
    ) -> Iterator[Any]:
        """The session is active while the original works, not while the consumer has the item."""
        with run:
            with run.active():
                items = start(run.native)
            yield from drawn(run.active, items)

    async def _aiterate(
        self,
        begin: Callable[[], Awaitable[CompiledRun]],
        start: Callable[[Runnable[Any, Any]], AsyncIterator[Any]],
    ) -> AsyncGenerator[Any, None]:
        with await begin() as run:
            with run.active():
                items = start(run.native)
            async with aclosing(adrawn(run.active, items)) as drawn_items:
                async for item in drawn_items:
                    yield item


@rule(CompiledRunnable)
def _compiled(
    planner: Planner, runnable: CompiledRunnable[Any, Any], value: Any, context: StepContext
) -> Any:
    """It opens a session of its own, which its calls are in."""
    raise BreakError(
        "is compiled by itself and plans its own calls",
        "Compile only the whole chain: then all of it is one plan.",
    )
