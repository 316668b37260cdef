"""What `RunnableWithMessageHistory` is made of: functions of LangChain's own, which are recognized."""

from inspect import getclosurevars
from types import FunctionType, MethodType
from typing import Any

from langchain_core.runnables import Runnable
from langchain_core.runnables.history import RunnableWithMessageHistory

_MODULE = RunnableWithMessageHistory.__module__
_MADE_IN = "RunnableWithMessageHistory.__init__.<locals>."
_CALLED = {"_call_runnable_sync": "runnable_sync", "_call_runnable_async": "runnable_async"}
_LOADS = {"_enter_history", "_aenter_history"}


def loads_history(function: Any) -> bool:
    """Whether it reads the history."""
    if not isinstance(function, MethodType) or function.__func__.__module__ != _MODULE:
        return False
    return function.__func__.__name__ in _LOADS


def called_with_history(function: Any) -> Runnable[Any, Any] | None:
    """The runnable that the function gives, to be called with the history; None if it is another."""
    if not isinstance(function, FunctionType) or function.__module__ != _MODULE:
        return None
    name = _CALLED.get(function.__qualname__.removeprefix(_MADE_IN))
    called = getclosurevars(function).nonlocals.get(name) if name else None
    return called if isinstance(called, Runnable) else None
