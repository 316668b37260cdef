"""Rules for steps on texts: the string parser, joins, and `itemgetter`."""

from operator import attrgetter, itemgetter
from types import BuiltinMethodType
from typing import Any, cast

from langchain_core.messages import BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda

from parrot_integrations.langchain.compiling.history import called_with_history, loads_history
from parrot_integrations.langchain.compiling.join import JoinTexts
from parrot_integrations.langchain.compiling.planner import Planner, StepContext, rule
from parrot_integrations.langchain.compiling.rules.documents import format_documents
from parrot_integrations.langchain.compiling.rules.inputs import is_dict
from parrot_integrations.planning.structured import JsonValue
from parrot_integrations.planning.transforms import declared, join, transformed
from parrot_integrations.planning.values import Answer, BreakError


@rule(StrOutputParser)
def string_parser(
    planner: Planner, runnable: StrOutputParser, value: Any, context: StepContext
) -> Any:
    """The text of an answer; of a string, the string."""
    if isinstance(value, Answer):
        return value.text
    if isinstance(value, str):
        return value
    if isinstance(value, BaseMessage) and type(value.content) is str:
        return value.content
    raise BreakError("parses something other than a planned answer")


@rule(JoinTexts)
def join_texts(planner: Planner, runnable: JoinTexts, value: Any, context: StepContext) -> Any:
    """A transform that the backend runs; plain strings are joined here."""
    return transformed(planner.plan, [join(runnable.separator)], value)


@rule(RunnableLambda)
def function(
    planner: Planner, runnable: RunnableLambda[Any, Any], value: Any, context: StepContext
) -> Any:
    """Functions are opaque, but for declared ones and those of libraries that are known."""
    function: Any = getattr(runnable, "func", None) or getattr(runnable, "afunc", None)
    if steps := declared(function):
        return transformed(planner.plan, steps, value)
    if isinstance(function, itemgetter):
        return _items(function, value)
    if isinstance(function, attrgetter) and isinstance(value, JsonValue):
        return _attributes(function, value)
    if _is_join(function):
        return transformed(planner.plan, [join(function.__self__)], value)
    if (called := called_with_history(function)) is not None:
        return planner.step(called, value, context.at("returned"))
    if loads_history(function):
        raise BreakError(
            "reads a history, which planning does not",
            "What comes after it is planned when the history is there.",
        )
    if (text := format_documents(planner.plan, function, value)) is not None:
        return text
    raise BreakError(
        "is a function of yours, which planning does not run",
        "For a key use itemgetter or pick, for a join join_texts(separator); declare what else it "
        "does to a text by @semantic_transform.",
    )


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
