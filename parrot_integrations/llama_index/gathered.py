"""Calls that one `asyncio.gather` waits for, where no span is around them."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

_WAITS = "gather.<locals>._done_callback"

_gathers: WeakKeyDictionary[Callable[..., Any], str] = WeakKeyDictionary()
_calls: WeakKeyDictionary[asyncio.Task[Any], int] = WeakKeyDictionary()


def gathered() -> str | None:
    """A name for this call and those that its task's siblings make when it is their turn to.

    The first calls of all the tasks of one `gather` are siblings, and so are the second ones. None
    where the task is of none, or does not say so: tasks that merely start together, as those of a
    server's requests do, have nothing to do with each other.
    """
    task = asyncio.current_task()
    if task is None:
        return None
    # What a task has to tell when it is over; `gather` gives the same function to all of its tasks.
    told = [callback for callback, *_ in getattr(task, "_callbacks", None) or ()]
    waits = next((each for each in told if getattr(each, "__qualname__", "") == _WAITS), None)
    if waits is None:
        return None
    name = _gathers.setdefault(waits, f"gather-{uuid4().hex}")
    _calls[task] = _calls.get(task, 0) + 1
    return f"{name}.{_calls[task]}"
