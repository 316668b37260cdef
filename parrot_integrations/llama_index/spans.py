"""LlamaIndex's open spans as a tree: what runs, inside what, and what side by side with it.

    TreeSummarize.synthesize-5f                      the top: what the application asked for
      TreeSummarize.get_response-2a                  1st of its name
        apredict-01 apredict-02 apredict-03          the 1st, all three: they are open at once
        TreeSummarize.get_response-7c                1st
          predict-44                                 1st
    Refine.get_response-9e
      predict-51                                     1st, asks, and is over
      predict-52                                     2nd

Spans have the same place where all the steps of their ways have the same names and numbers. So calls
at the same place are those that are waited for together, at whatever depth, and calls of a loop, of
which each starts when the one before it is over, never are.
"""

import asyncio
import inspect
from threading import Lock
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary, ref

from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.chat_engine.types import BaseChatEngine
from llama_index.core.memory import BaseMemory
from llama_index.core.workflow import Context, Workflow
from llama_index_instrumentation import root_dispatcher
from llama_index_instrumentation.dispatcher import active_instrument_tags
from llama_index_instrumentation.span import BaseSpan, active_span_id
from llama_index_instrumentation.span_handlers import BaseSpanHandler

from parrot_integrations.client.scope import wire_name

_UUID = 36


class _Step:
    """The spans of one name inside another that run side by side: how many of them are open."""

    __slots__ = ("asked", "number", "open")

    def __init__(self) -> None:
        self.open, self.number, self.asked = 0, 0, False


class Span:
    """One that is open.

    `place` is the same for spans that run side by side. `thread` is the name of what the outermost
    one around it, itself included, is for; there is none around calls that are made of an LLM alone.
    It `runs` a workflow, or is that of an LLM's method that `streams`, and is over before it begins.
    """

    __slots__ = ("_lock", "_steps", "name", "parent", "place", "runs", "streams", "thread")

    def __init__(
        self,
        name: str,
        parent: "Span | None",
        thread: str | None,
        *,
        runs: bool = False,
        streams: bool = False,
    ) -> None:
        self.name, self.parent, self.thread = name, parent, thread
        self.runs, self.streams = runs, streams
        self._lock = Lock()  # not one for all: a fork could come while another thread holds it
        self._steps: dict[str, _Step] = {}
        self.place: int = (
            hash((parent.place, name, parent.begin(name))) if parent else hash(uuid4())
        )

    def begin(self, name: str) -> int:
        """A span of this name begins inside; the number of the step that it is part of.

        What made no call is no step: a workflow looks at what has come, however often, and goes on
        when all of it has.
        """
        with self._lock:
            step = self._steps.setdefault(name, _Step())
            if step.open == 0 and step.asked:
                step.number, step.asked = step.number + 1, False
            step.open += 1
            return step.number

    def end(self, name: str) -> None:
        """A span of this name that was inside is over."""
        with self._lock:
            self._steps[name].open -= 1

    def asks(self) -> None:
        """A call is made inside."""
        span = self
        while (outer := span.parent) is not None and not outer._steps[span.name].asked:
            outer._steps[span.name].asked = True
            span = outer


_open: dict[str, Span] = {}
"""By their ids. Not a field of the handler: those of the framework's models are slow to get at."""


class Spans(BaseSpanHandler[BaseSpan]):
    """Hears of the spans that are open, in all threads and tasks, and forgets those that are over."""

    @classmethod
    def class_name(cls) -> str:
        """Name in serialized components."""
        return "ParrotSpans"

    def span_enter(
        self,
        id_: str,
        bound_args: inspect.BoundArguments,
        instance: Any | None = None,
        parent_id: str | None = None,
        tags: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """See `BaseSpanHandler.span_enter`."""
        parent = _open.get(parent_id or "")
        name = id_[: -_UUID - 1]
        owner: Any = type(instance)
        asks, flows = _kind(owner)
        runs = flows and name.endswith(".run")
        if runs and parent is not None and parent.runs:
            # Before workflows 2, a run that has been started stays the span of who started it. What is
            # really inside of it is inside one of its steps.
            parent = parent.parent
        thread = parent.thread if parent else None
        if thread is None and not asks:
            thread = _thread(id_, instance, bound_args.arguments)
        _open[id_] = Span(name, parent, thread, runs=runs, streams=asks and ".astream" in name)

    def span_exit(self, id_: str, *args: Any, **kwargs: Any) -> None:
        """See `BaseSpanHandler.span_exit`."""
        span = _open.pop(id_, None)
        if span is None or span.parent is None:
            return
        if span.streams:
            # It is over before its stream has begun. Its siblings come before the loop's next turn.
            asyncio.get_running_loop().call_soon(span.parent.end, span.name)
        else:
            span.parent.end(span.name)

    def span_drop(self, id_: str, *args: Any, **kwargs: Any) -> None:
        """See `BaseSpanHandler.span_drop`."""
        span = _open.pop(id_, None)
        if span is not None and span.parent is not None:
            span.parent.end(span.name)

    def close(self) -> None:
        """See `BaseSpanHandler.close`."""
        _open.clear()

    def new_span(self, *args: Any, **kwargs: Any) -> None:
        """Not asked for, as the two that follow: what they would make is kept elsewhere."""

    def prepare_to_exit_span(self, *args: Any, **kwargs: Any) -> None:
        """See `new_span`."""

    def prepare_to_drop_span(self, *args: Any, **kwargs: Any) -> None:
        """See `new_span`."""


_kinds: WeakKeyDictionary[type, tuple[bool, bool]] = WeakKeyDictionary()


def _kind(owner: type) -> tuple[bool, bool]:
    """Whether it is a class of LLMs, and of workflows; the framework's classes are slow to tell."""
    if (known := _kinds.get(owner)) is None:
        known = _kinds[owner] = issubclass(owner, BaseLLM), issubclass(owner, Workflow)
    return known


def _thread(id_: str, instance: Any, arguments: dict[str, Any]) -> str:
    """What a span that is inside no other is for.

    A conversation that goes on, where it can be seen: a workflow's context, an agent's memory, a chat
    engine. Else the run of a workflow, which the application may name, or the span itself.
    """
    start = arguments.get("start_event")
    seen = (arguments.get("ctx"), getattr(start, "memory", None), arguments.get("memory"), instance)
    owner = next((each for each in seen if isinstance(each, _CONVERSATIONS)), None)
    if owner is not None:
        return _conversation(owner)
    run = active_instrument_tags.get().get("llamaindex.run_id")
    return wire_name(f"run-{run}" if run else id_)


_CONVERSATIONS = (Context, BaseMemory, BaseChatEngine)
_conversations: dict[int, tuple[ref[Any], str]] = {}


def _conversation(owner: Any) -> str:
    """The name of the conversation that an object holds, as long as the object lives."""
    key = id(owner)
    known = ref(owner, lambda _: _conversations.pop(key, None))
    name = wire_name(f"{type(owner).__name__}-{uuid4().hex}")
    return _conversations.setdefault(key, (known, name))[1]


_spans = Spans()


def current_span() -> Span | None:
    """The innermost span of LlamaIndex's that is open around the code that asks.

    What hears of them is with LlamaIndex's dispatcher from the import of this module on. Where an
    application has thrown it out, it comes back, and hears of what begins from then on.
    """
    handlers = root_dispatcher.span_handlers
    if not any(handler is _spans for handler in handlers):
        handlers.append(_spans)
    return _open.get(active_span_id.get() or "")


current_span()
