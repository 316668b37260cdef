"""What can be seen of a run from outside: events, spans, callbacks, records, prints, bars, results."""

import asyncio
import logging
import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import Context
from dataclasses import dataclass
from io import StringIO
from itertools import takewhile, zip_longest
from typing import Any

import pytest
import tqdm.std
from llama_index.core import Settings
from llama_index.core.callbacks import CallbackManager
from llama_index.core.instrumentation import get_dispatcher

from tests.integrations.llama_index.compiling.hearing import (
    Callbacks,
    Events,
    Lines,
    Log,
    Records,
    Spans,
)
from tests.integrations.llama_index.compiling.plain import Names, plain

# LlamaIndex ends an event loop for each of its calls, under the connections and the thread of a
# chat's memory too, and leaves coroutines behind where one fails.
left_behind = pytest.mark.filterwarnings(
    "ignore:.*was never awaited",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore:.*_connection_worker_thread:pytest.PytestUnhandledThreadExceptionWarning",
)
_LOGGERS = ("llama_index", "llama_index_instrumentation", "workflows", "parrot_integrations")


@dataclass
class Seen:
    """A run from outside."""

    result: Any
    error: tuple[str, str] | None
    log: Log
    calls: list[str]
    troubles: list[str]

    @property
    def failed(self) -> bool:
        """Whether anything in it failed, and be it that the framework went on."""
        return bool(self.error) or any(kind == "drop" for _, kind, _ in self.log.entries)

    @property
    def prompts(self) -> int:
        return sum(
            kind == "event" and value[0] in ("LLMChatStartEvent", "LLMCompletionStartEvent")
            for _, kind, value in self.log.entries
        )


def watch(
    run: Callable[[], Any], callbacks: Callbacks, calls: list[str], whole: bool = False
) -> Seen:
    """What a run gives, and all that can be seen of it; `calls` has what user code was asked.

    With `whole`, the pieces of a stream are not: how an engine cuts its text is a matter of time.
    """
    log = Log(whole)
    result = error = None
    random.seed(7)
    with _own_loop(), _watching(log, callbacks) as records:
        try:
            result = plain(Context().run(run))  # with nothing that another run has left
        except Exception as raised:
            error = plain(raised)
    log.add("random", random.random())  # what is left of what user code may have drawn from
    return Seen(result, error, log, calls, records.troubles)


@contextmanager
def _own_loop() -> Iterator[None]:
    """LlamaIndex leaves tasks in the thread's loop where one of several fails."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        yield
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()


@contextmanager
def _watching(log: Log, callbacks: Callbacks) -> Iterator[Records]:
    events, spans, records = Events(log), Spans(log), Records(log)
    dispatcher = get_dispatcher()
    dispatcher.add_event_handler(events)
    dispatcher.add_span_handler(spans)
    callbacks.log = log
    try:
        with redirect_stdout(Lines(log)), _bars(log), _heard(records), _warned(log):
            yield records
    finally:
        callbacks.log = None
        dispatcher.event_handlers.remove(events)
        dispatcher.span_handlers.remove(spans)


@contextmanager
def _heard(records: Records) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.addHandler(records)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
            logger.removeHandler(records)


@contextmanager
def _warned(log: Log) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        for left in (ResourceWarning, RuntimeWarning):  # they come when garbage is collected
            warnings.simplefilter("ignore", left)
        warnings.showwarning = lambda message, *_: log.add("warning", plain(message))
        yield


@contextmanager
def _bars(log: Log) -> Iterator[None]:
    """Notes progress bars, and keeps them from the terminal."""
    original = tqdm.std.tqdm.__init__

    def noting(self: Any, *args: Any, **kwargs: Any) -> None:
        log.add("bar", (kwargs.get("desc"), kwargs.get("total"), kwargs.get("disable")))
        original(self, *args, **{**kwargs, "file": StringIO()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tqdm.std.tqdm, "__init__", noting)
        yield


@contextmanager
def settings(llm: Any, embed_model: Any, callbacks: Callbacks) -> Iterator[None]:
    """LlamaIndex's global settings for one run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Settings, "_llm", llm)
        patch.setattr(Settings, "_embed_model", embed_model)
        patch.setattr(Settings, "_callback_manager", CallbackManager([callbacks]))
        yield


def assert_equal(found: Seen, expected: Seen, *, concurrent: bool) -> None:
    """Where parts run side by side and one fails, which one is first is a matter of time."""
    assert found.troubles == []
    if concurrent and expected.failed and found.failed:
        assert bool(found.error) == bool(expected.error)
        return
    alike = Names(alike=concurrent), Names(alike=concurrent)
    assert found.error == expected.error
    assert alike[0].text(found.result) == alike[1].text(expected.result)
    if concurrent:
        assert Counter(found.calls) == Counter(expected.calls)
        _assert_lines(found.log.as_tree().splitlines(), expected.log.as_tree().splitlines())
    else:
        assert found.calls == expected.calls
        _assert_lines(found.log.in_order(), expected.log.in_order())


def _assert_lines(found: list[str], expected: list[str]) -> None:
    """Says where the first difference is, for there are many and long lines."""
    for number, pair in enumerate(zip_longest(found, expected)):
        if pair[0] != pair[1]:
            told = "\n".join(_around(line or "nothing", *pair) for line in pair)
            counts = f"line {number} of {len(found)} and {len(expected)}"
            pytest.fail(f"{counts}: found, expected\n{told}", pytrace=False)


def _around(line: str, *pair: str | None) -> str:
    found, expected = (each or "" for each in pair)
    equal = takewhile(lambda both: both[0] == both[1], zip(found, expected, strict=False))
    start = max(0, sum(1 for _ in equal) - 200)
    return f"  {line[:120]} ... {line[start : start + 600]}"
