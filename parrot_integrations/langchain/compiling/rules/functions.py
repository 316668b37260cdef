"""Rules for functions: declared ones, those of libraries that are known, and what their source says."""

from collections.abc import Callable
from functools import partial
from operator import attrgetter, itemgetter
from os.path import basename
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any, cast

from langchain_core.runnables import Runnable, RunnableLambda

from parrot_integrations.langchain.compiling.history import called_with_history, loads_history
from parrot_integrations.langchain.compiling.planner import Planner, StepContext, rule
from parrot_integrations.langchain.compiling.rules.documents import format_documents
from parrot_integrations.langchain.compiling.rules.inputs import is_dict
from parrot_integrations.langchain.compiling.rules.objects import Objects, RunConfig, normal
from parrot_integrations.planning.reading.kinds import Injected, need
from parrot_integrations.planning.reading.operations import truth
from parrot_integrations.planning.reading.problems import UnreadableError
from parrot_integrations.planning.reading.reading import read
from parrot_integrations.planning.structured import JsonValue
from parrot_integrations.planning.transforms import declared, join, transformed
from parrot_integrations.planning.values import BreakError, Entry

_INJECTED = ("run_manager", "runtime", "store", "writer")
"""What LangChain and LangGraph give to parameters of these names."""


@rule(RunnableLambda)
def function(
    planner: Planner, runnable: RunnableLambda[Any, Any], value: Any, context: StepContext
) -> Any:
    """What the function gives; a runnable gets the same input, as in `RunnableLambda.invoke`."""
    called: Any = getattr(runnable, "func", None) or getattr(runnable, "afunc", None)
    try:
        found = _given(planner, called, value, context)
    except BreakError:
        _plan_what_is_returned(planner, value, context)
        raise
    if isinstance(found, Runnable):
        return planner.step(found, value, context.at("returned"))
    return found


def _given(planner: Planner, function: Any, value: Any, context: StepContext) -> Any:
    if steps := declared(function):
        return transformed(planner.plan, steps, value)
    if isinstance(function, itemgetter):
        return _items(function, value)
    if isinstance(function, attrgetter) and isinstance(value, JsonValue):
        return _attributes(function, value)
    if _is_join(function):
        return transformed(planner.plan, [join(function.__self__)], value)
    if (step := called_with_history(function)) is not None:
        return step
    if loads_history(function):
        raise BreakError(
            "reads a history, which planning does not",
            "What comes after it is planned when the history is there.",
        )
    if (text := format_documents(planner.plan, function, value)) is not None:
        return text
    return planned_call(planner, function, (value,), context)


def is_true(
    planner: Planner, runnable: Runnable[Any, Any], value: Any, context: StepContext
) -> bool:
    """Whether a function, as a runnable that is a condition, gives something true.

    Raises:
        BreakError: only the run knows.
        NotYetError: it can be told when something is known that is not yet.
    """
    called: Any = getattr(runnable, "func", None)
    if type(runnable) is not RunnableLambda or called is None:
        raise BreakError("decides by a step")
    try:
        return truth(need(_given(planner, called, value, context)))
    except UnreadableError as problem:
        raise BreakError(str(problem)) from None


def planned_call(
    planner: Planner, function: Callable[..., Any], arguments: tuple[Any, ...], context: StepContext
) -> Any:
    """What a function gives, from its source; the calls of steps inside it are planned.

    It is read again, with the same context, when a value that it waits for is there: calls that are
    planned already stay. So each call of a function needs a key of its own in its context, whose
    keyword arguments it gets too.

    Raises:
        BreakError: it can't be told beforehand.
        NotYetError: it can be told when something is known that is not yet.
    """
    keywords = {**_injected(function, context), **context.kwargs}
    found = read(
        planner.plan,
        Objects(planner, context),
        function,
        [normal(argument) for argument in arguments],
        {name: normal(argument) for name, argument in keywords.items()},
    )
    if (where := _location(function)) is not None:
        planner.plan.note(where, "read from its source")
    return found


def _injected(function: Any, context: StepContext) -> dict[str, Any]:
    code = getattr(_plain_function(function), "__code__", None)
    names = () if code is None else code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    found: dict[str, Any] = {name: Injected(name) for name in _INJECTED if name in names}
    if "config" in names:
        found["config"] = RunConfig(context.configurable)
    return found


def _location(function: Any) -> str | None:
    plain = _plain_function(function)
    if plain is None:
        return None
    code = plain.__code__
    return f"{plain.__name__} ({basename(code.co_filename)}:{code.co_firstlineno})"


def _plain_function(function: Any) -> FunctionType | None:
    """The function under methods and partials."""
    while type(function) in (MethodType, partial):
        function = function.__func__ if type(function) is MethodType else function.func
    return function if type(function) is FunctionType else None


def _plan_what_is_returned(planner: Planner, value: Any, context: StepContext) -> None:
    """When the run shows that the function gave a runnable, what that will do is planned."""
    returned = Entry()
    planner.plan.unknowns[*context.key, "returned"] = returned

    def plan() -> None:
        result = planner.step(returned.value, value, context.at("returned"))
        planner.plan.unknowns[context.key].settle(result)

    returned.then(plan)


def _is_join(function: Any) -> bool:
    """Whether it is `separator.join` of a string."""
    if not isinstance(function, BuiltinMethodType):
        return False
    return type(function.__self__) is str and function.__name__ == "join"


def _items(getter: "itemgetter[Any]", value: Any) -> Any:
    keys = cast("tuple[Any, tuple[Any, ...]]", getter.__reduce__())[1]
    where = f"itemgetter({', '.join(map(repr, keys))})"
    if isinstance(value, JsonValue) and all(type(key) in (str, int) for key in keys):
        items = tuple(value.item(key) for key in keys)
        return items if len(items) > 1 else items[0]
    if not is_dict(value) and type(value) not in (list, tuple):
        raise BreakError("the input is not known yet, or has no items", where=where)
    try:
        items = tuple(value[key] for key in keys)
    except (KeyError, IndexError, TypeError):
        raise BreakError("the input lacks it", where=where) from None
    return items if len(items) > 1 else items[0]


def _attributes(getter: "attrgetter[Any]", value: JsonValue) -> Any:
    names = cast("tuple[Any, tuple[str, ...]]", getter.__reduce__())[1]
    attributes = tuple(value.attribute(name) for name in names)
    return attributes if len(attributes) > 1 else attributes[0]
