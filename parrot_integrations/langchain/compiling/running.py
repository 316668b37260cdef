"""One run of a compiled runnable, and how iterators are drawn inside and outside of it.

The original runs in the caller's own context, as it does natively. What a run sets there, it sets for
the original only, and not while the caller has an item of an iterator.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

from parrot_backend.wire.protocol import Objective
from parrot_integrations.client import active_sessions
from parrot_integrations.langchain.compiling.observing.native import (
    RunObserver,
    current,
    observed_by,
)
from parrot_integrations.langchain.compiling.observing.observed import Execution, aclose, close
from parrot_integrations.langchain.compiling.planner import StepPath
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.session import OnSession, PlannedRun

Active = Callable[[], AbstractContextManager[None]]

INPUT: StepPath = ("input",)
"""Where a stream's input is known from, when it has come to its end."""

_END: Any = object()


class CompiledRun(PlannedRun):
    """One run of a compiled runnable, whose original is run as `native`.

    `on_idle` is called when it has come to its end and had nothing to submit.
    """

    def __init__(
        self,
        native: Runnable[Any, Any],
        plan: Plan,
        objective: Objective | None,
        on_session: OnSession | None,
        on_idle: Callable[[], None],
    ) -> None:
        super().__init__(plan, objective, on_session)
        self.native = native
        self._observer = RunObserver(plan, self)
        self._on_idle = on_idle

    def __exit__(self, *raised: object) -> None:
        super().__exit__()
        if raised[:1] == (None,) and not self.began:
            self._on_idle()

    @contextmanager
    def active(self) -> Iterator[None]:
        """The original works: its requests claim what was planned, its observers report here."""
        with super().active(), observed_by(self._observer):
            yield


def outside() -> Active:
    """What is active where this is called, to be so again for a while inside a run."""
    sessions, observer = active_sessions.get(), current()

    @contextmanager
    def active() -> Iterator[None]:
        with ExitStack() as stack:
            stack.callback(active_sessions.reset, active_sessions.set(sessions))
            stack.enter_context(observed_by(observer))
            yield

    return active


def input_chunks(active: Active, chunks: Iterator[Any]) -> Iterator[Any]:
    """A stream's input, drawn with what is active where it comes from; the plan starts at its end."""
    return _input().chunks(drawn(active, chunks))


def ainput_chunks(active: Active, chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """As `input_chunks`."""
    return _input().achunks(adrawn(active, chunks))


def _input() -> Execution:
    return Execution(current(), INPUT, (0,), RunnableConfig())


def drawn(active: Active, iterator: Iterator[Any]) -> Iterator[Any]:
    """An iterator's items, with something active during each step towards them."""
    try:
        while True:
            with active():
                item = next(iterator, _END)
            if item is _END:
                return
            yield item
    finally:
        with active():
            close(iterator)


async def adrawn(active: Active, iterator: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    """As `drawn`."""
    try:
        while True:
            with active():
                item = await anext(iterator, _END)
            if item is _END:
                return
            yield item
    finally:
        with active():
            await aclose(iterator)
