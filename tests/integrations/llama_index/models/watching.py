"""What the framework tells of calls: events and spans, in the order in which they come."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.span_handlers import NullSpanHandler
from pydantic import Field


class Events(BaseEventHandler):
    seen: list[Any] = Field(default_factory=list)

    def handle(self, event: Any, **_: Any) -> None:
        self.seen.append(event)

    def kinds(self) -> list[str]:
        """Their names, each once where several follow each other."""
        names = [event.class_name() for event in self.seen]
        return [n for i, n in enumerate(names) if i == 0 or names[i - 1] != n]


class Spans(NullSpanHandler):
    seen: list[str] = Field(default_factory=list)

    def span_enter(self, id_: str, **_: Any) -> None:
        self.seen.append(id_.partition("-")[0].partition(".")[2])


@contextmanager
def watching() -> Iterator[tuple[Events, Spans]]:
    events, spans = Events(), Spans()
    root = get_dispatcher()
    root.add_event_handler(events)
    root.add_span_handler(spans)
    try:
        yield events, spans
    finally:
        root.event_handlers.remove(events)
        root.span_handlers.remove(spans)
