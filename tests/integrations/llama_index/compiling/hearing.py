"""Who hears what a run tells, of events, spans, callbacks and records, and one log of it all."""

import logging
import threading
from dataclasses import dataclass, field
from io import StringIO
from typing import Any
from uuid import uuid4

from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.span import active_span_id
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler
from pydantic import PrivateAttr

from tests.integrations.llama_index.compiling.plain import Names, plain

_OF_ONE_EVENT = {"id_", "timestamp", "span_id"}
_OF_PIECES = ("InProgressEvent", "DeltaReceivedEvent")
_ROOT = ""


@dataclass
class Span:
    name: str
    parent: str
    inside: list[tuple[str, Any]] = field(default_factory=list)


class Log:
    """What happened, in order, each in the span that it happened in."""

    def __init__(self, whole: bool = False) -> None:
        self.whole = whole
        self.lock = threading.RLock()
        self.spans = {_ROOT: Span("", _ROOT)}
        self.entries: list[tuple[str, str, Any]] = []

    def add(self, kind: str, value: Any, span: str | None = None) -> None:
        with self.lock:
            span = span if span in self.spans else active_span_id.get()
            span = span if span in self.spans else _ROOT
            self.entries.append((span, kind, value))
            self.spans[span].inside.append((kind, value))

    def enter(self, span: str, parent: str | None, told: Any) -> None:
        with self.lock:
            parent = parent if parent in self.spans else _ROOT
            self.spans[span] = Span(span[: -len(str(uuid4())) - 1], parent)
            self.entries.append((span, "enter", told))
            self.spans[span].inside.append(("enter", told))
            self.spans[parent].inside.append(("span", span))

    def path(self, span: str) -> str:
        above = self.spans[span]
        return f"{self.path(above.parent)}/{above.name}" if span else ""

    def in_order(self) -> list[str]:
        names = Names()
        return [names.text((self.path(span), *told)) for span, *told in self.entries]

    def as_tree(self) -> str:
        """As it would be in any order of what runs side by side."""
        return self._tree(_ROOT, Names(alike=True))

    def _tree(self, span: str, names: Names) -> str:
        inside = [
            self._tree(value, names) if kind == "span" else names.text((kind, value))
            for kind, value in self.spans[span].inside
            if kind != "trace map"  # it is made while a stream still runs
        ]
        indented = "\n".join(sorted(inside)).replace("\n", "\n  ")
        return f"{self.spans[span].name}\n  {indented}"


class Events(BaseEventHandler):
    _log: Log = PrivateAttr()

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    @classmethod
    def class_name(cls) -> str:
        return "Events"

    def handle(self, event: Any, **_: Any) -> None:
        if self._log.whole and type(event).__name__.endswith(_OF_PIECES):
            return
        told = {k: v for k, v in event.__dict__.items() if k not in _OF_ONE_EVENT}
        self._log.add("event", (type(event).__name__, plain(told)), event.span_id)


class Spans(BaseSpanHandler[Any]):
    _log: Log = PrivateAttr()

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    @classmethod
    def class_name(cls) -> str:
        return "Spans"

    def span_enter(self, id_, bound_args, instance=None, parent_id=None, tags=None, **_) -> None:
        self._log.enter(id_, parent_id, (type(instance).__name__, plain(bound_args), plain(tags)))

    def span_exit(self, id_, bound_args, instance=None, result=None, **_) -> None:
        self._log.add("exit", plain(result), id_)

    def span_drop(self, id_, bound_args, instance=None, err=None, **_) -> None:
        self._log.add("drop", plain(err), id_)

    def new_span(self, *_: Any, **__: Any) -> None: ...

    def prepare_to_exit_span(self, *_: Any, **__: Any) -> None: ...

    def prepare_to_drop_span(self, *_: Any, **__: Any) -> None: ...


class Callbacks(BaseCallbackHandler):
    """Callback events under the names of the events above them."""

    def __init__(self) -> None:
        super().__init__([], [])
        self.log: Log | None = None
        self._paths: dict[str, str] = {}

    def _add(self, kind: str, *told: Any) -> None:
        if self.log is not None:
            self.log.add(kind, told)

    def on_event_start(self, event_type, payload=None, event_id="", parent_id="", **_) -> str:
        self._paths[event_id] = f"{self._paths.get(parent_id, parent_id)}/{event_type}"
        self._add("callback", self._paths[event_id], plain(payload))
        return event_id

    def on_event_end(self, event_type, payload=None, event_id="", **_) -> None:
        self._add("callback end", self._paths.get(event_id, str(event_type)), plain(payload))

    def start_trace(self, trace_id=None) -> None:
        self._add("trace", trace_id)

    def end_trace(self, trace_id=None, trace_map=None) -> None:
        named = {
            self._paths.get(above, above): sorted(self._paths.get(below, below) for below in events)
            for above, events in (trace_map or {}).items()
        }
        self._add("trace end", trace_id)
        self._add("trace map", sorted(named.items()))


class Records(logging.Handler):
    """The framework's records; those of ours only where something went wrong."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.DEBUG)
        self._log = log
        self.troubles: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("parrot_integrations"):
            if record.levelno >= logging.WARNING:
                self.troubles.append(self.format(record))
            return
        error = plain(record.exc_info[1]) if record.exc_info else None
        self._log.add("record", (record.name, record.levelname, plain(record.getMessage()), error))


class Lines(StringIO):
    """What is printed, in whatever pieces."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def write(self, text: str) -> int:
        if text.strip():
            self._log.add("print", plain(text))
        return len(text)
