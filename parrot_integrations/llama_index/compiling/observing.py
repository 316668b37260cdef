"""What the framework tells of a run while it goes on: the calls it makes, and what operations give."""

import logging
from collections.abc import Callable
from contextvars import ContextVar
from inspect import BoundArguments
from threading import Lock
from typing import Any, Protocol

from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent, LLMCompletionEndEvent
from llama_index.core.instrumentation.span_handlers import NullSpanHandler

from parrot_integrations.llama_index.compiling.query_pipeline import PipelineRun, watch_pipelines
from parrot_integrations.llama_index.compiling.shadow.silence import is_silent

logger = logging.getLogger(__name__)


class Observer(PipelineRun, Protocol):
    """Hears of a run."""

    @property
    def over(self) -> bool:
        """Whether the run has ended."""

    def entered(
        self, span: str, method: str, instance: Any, arguments: BoundArguments, parent: str | None
    ) -> None:
        """A method of the framework's was entered."""

    def left(self, span: str, method: str, instance: Any, arguments: Any, result: Any) -> None:
        """It has ended, with a result; or it was given up, with none."""

    def answered(self, span: str | None, text: str) -> None:
        """The LLM call that a span is of was answered."""


observer: ContextVar[Observer | None] = ContextVar("parrot_observer", default=None)
"""Who observes the run that goes on here."""


def observe() -> None:
    """Have the framework tell, once for the process."""
    root = get_dispatcher()
    with _lock:  # an application may have thrown either out
        if not any(each is _spans for each in root.span_handlers):
            root.add_span_handler(_spans)
        if not any(each is _events for each in root.event_handlers):
            root.add_event_handler(_events)
        watch_pipelines(lambda: None if is_silent() else observer.get())


class _Spans(NullSpanHandler):
    def span_enter(
        self,
        id_: str,
        bound_args: BoundArguments,
        instance: Any = None,
        parent_id: str | None = None,
        tags: Any = None,
        **kwargs: Any,
    ) -> None:
        _tell(lambda run: run.entered(id_, method_of(id_), instance, bound_args, parent_id))

    def span_exit(
        self,
        id_: str,
        bound_args: BoundArguments,
        instance: Any = None,
        result: Any = None,
        **kwargs: Any,
    ) -> None:
        _tell(lambda run: run.left(id_, method_of(id_), instance, bound_args, result))

    def span_drop(
        self,
        id_: str,
        bound_args: BoundArguments,
        instance: Any = None,
        err: BaseException | None = None,
        **kwargs: Any,
    ) -> None:
        self.span_exit(id_, bound_args, instance)


class _Events(BaseEventHandler):
    def handle(self, event: Any, **kwargs: Any) -> None:
        if isinstance(event, LLMChatEndEvent) and (response := event.response) is not None:
            _tell(lambda run: run.answered(event.span_id, response.message.content or ""))
        elif isinstance(event, LLMCompletionEndEvent):
            _tell(lambda run: run.answered(event.span_id, event.response.text))


def _tell(tell: Callable[[Observer], None]) -> None:
    """Tell the run that goes on here, where one does; what fails there fails the plan alone."""
    if (run := observer.get()) is not None:
        try:
            tell(run)
        except Exception:
            logger.exception("planning failed, running on without it")


def method_of(span: str) -> str:
    """The method that a span is of: its name stands before a UUID, behind its class's."""
    return span.rsplit("-", 5)[0].rpartition(".")[2]


_spans, _events = _Spans(), _Events()
_lock = Lock()
