"""Runs that planning can do nothing for are not planned again: it would only cost.

Where neither a choice nor the length of a list decides which calls a chain makes, one run shows it: if
nothing of it was worth submitting, nothing will be for an input of the same shape.
"""

from collections.abc import Hashable, Sequence
from typing import Any

from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseLanguageModel
from langchain_core.runnables import Runnable, RunnableAssign, RunnableParallel, RunnableSequence
from langchain_core.runnables.base import RunnableBindingBase

from parrot_integrations.langchain.compiling.calls import makes_calls
from parrot_integrations.langchain.compiling.history import called_with_history

_MOST_SHAPES = 64
_MOST_DEPTH = 4


class Idle:
    """The shapes of the inputs for which a runnable had nothing to submit; none where there is none."""

    def __init__(self, runnable: Runnable[Any, Any] | None) -> None:
        self._steady = runnable is not None and is_steady(runnable)
        self._shapes: set[Hashable] = set()

    def knows(self, inputs: Sequence[Any]) -> bool:
        """Whether a run with such inputs had nothing to submit; of several, there always is."""
        return self._steady and len(inputs) == 1 and shape(inputs[0]) in self._shapes

    def note(self, inputs: Sequence[Any]) -> None:
        """A run with these inputs came to its end and had nothing to submit."""
        # A cache, which may go again, keeps from the plan what would be worth submitting.
        if self._steady and len(self._shapes) < _MOST_SHAPES and get_llm_cache() is None:
            self._shapes.update(map(shape, inputs))


def shape(value: Any, depth: int = _MOST_DEPTH) -> Hashable:
    """The types that a value is made of, without looking into classes of the user's.

    Types stand by their ids: a class may not be hashable, and to take one for another costs time only.
    """
    kind = type(value)
    if kind is dict and depth:
        items = value.items()
        return tuple((key, shape(item, depth - 1)) for key, item in items if type(key) is str)
    if kind is list or kind is tuple:
        return id(kind), frozenset(id(type(item)) for item in value)
    return id(kind)


def is_steady(runnable: Runnable[Any, Any]) -> bool:
    """Whether it makes the same calls whatever it is given, as far as that can be seen."""
    if isinstance(runnable, RunnableSequence):
        return all(map(is_steady, runnable.steps))
    if isinstance(runnable, RunnableParallel):
        return all(map(is_steady, runnable.steps__.values()))
    if isinstance(runnable, RunnableAssign):
        return is_steady(runnable.mapper)
    if isinstance(runnable, RunnableBindingBase):
        return is_steady(runnable.bound)
    called = called_with_history(getattr(runnable, "func", None))
    if called is not None:
        return is_steady(called)
    return isinstance(runnable, BaseLanguageModel) or not makes_calls(runnable)
