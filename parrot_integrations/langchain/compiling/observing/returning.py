"""Functions that may give a runnable, which LangChain runs in their place: the plan hears of it."""

from collections.abc import Callable
from functools import wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import Any

from langchain_core.runnables import Runnable
from langchain_core.runnables.config import var_child_runnable_config

from parrot_integrations.langchain.compiling.observing.native import ResolvedValues, current
from parrot_integrations.langchain.compiling.observing.observed import Observed

Observe = Callable[[Runnable[Any, Any]], Observed]


def reporting(function: Any, observe: Observe) -> Any:
    """A function that does the same; a runnable that it gives is reported, and observed.

    To LangChain it looks like the original, whose signature decides what it is called with.
    """
    if isgeneratorfunction(function) or isasyncgenfunction(function):
        return function
    if iscoroutinefunction(function):

        @wraps(function)
        async def areported(*args: Any, **kwargs: Any) -> Any:
            output = await function(*args, **kwargs)
            if not isinstance(output, Runnable):
                return output
            step = observe(output)
            await current().asettle(_returned(step, output))
            return step

        return areported

    @wraps(function)
    def reported(*args: Any, **kwargs: Any) -> Any:
        output = function(*args, **kwargs)
        if not isinstance(output, Runnable):
            return output
        step = observe(output)
        current().settle(_returned(step, output))
        return step

    return reported


def _returned(step: Observed, output: Runnable[Any, Any]) -> ResolvedValues:
    """The function runs inside its own run, which knows the elements that it works on."""
    run, place = current(), step.place[:-1]
    elements = run.inherited(var_child_runnable_config.get(), place)
    return run.returned(place, elements, output)
