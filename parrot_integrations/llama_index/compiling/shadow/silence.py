"""Silence: what the framework does for the plan alone, no handler, trace or log hears of.

LlamaIndex tells all of its handlers through two classes and the standard library's loggers. Each of
them is given one question more, whether this is a shadow; copies of the objects would not do, for
modules and `Settings` have dispatchers and callback managers of their own.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

from llama_index.core.callbacks import CallbackManager
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]

_silent: ContextVar[bool] = ContextVar("parrot_shadow", default=False)

_FRAMEWORK = "llama_index"
_TELLING: dict[type[Any], tuple[str, ...]] = {
    type(get_dispatcher()): ("event", "span_enter", "span_exit", "span_drop"),
    CallbackManager: ("on_event_start", "on_event_end", "start_trace", "end_trace"),
}
_ASKS = "__parrot_asks__"


def is_silent() -> bool:
    """Whether this runs for the plan alone."""
    return _silent.get()


@contextmanager
def silence() -> Iterator[None]:
    """Nobody hears of what runs inside."""
    _install()
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def _install() -> None:
    for base, names in _TELLING.items():
        for kind in _with_subclasses(base):
            for name in names:
                tells = vars(kind).get(name)
                if tells is not None and not hasattr(tells, _ASKS):
                    setattr(kind, name, _unless_silent(tells))
    for name, logger in list(logging.Logger.manager.loggerDict.items()):
        if name.startswith(_FRAMEWORK) and isinstance(logger, logging.Logger):
            logger.addFilter(_is_heard)  # once, however often it is added


def _with_subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _with_subclasses(below)


def _is_heard(record: logging.LogRecord) -> bool:
    return not _silent.get()


def _unless_silent(tells: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(tells)
    def asking(self: Any, *args: Any, **kwargs: Any) -> Any:
        return "" if _silent.get() else tells(self, *args, **kwargs)

    setattr(asking, _ASKS, True)
    return asking
