"""Rules for steps on texts: the string parser, `join_texts`, and `itemgetter`."""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, cast

from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda

from parrot_integrations.langchain.join import JoinTexts
from parrot_integrations.langchain.planner import Planner, rule
from parrot_integrations.planning.values import Answer, Text


@rule(StrOutputParser)
def string_parser(
    planner: Planner, runnable: StrOutputParser, value: Any, kwargs: dict[str, Any]
) -> Any:
    """The text of an answer; of a string, the string."""
    if isinstance(value, Answer):
        return value.text
    if isinstance(value, str):
        return value
    return planner.stop(runnable, "parses something other than a planned answer")


@rule(JoinTexts)
def join(planner: Planner, runnable: JoinTexts, value: Any, kwargs: dict[str, Any]) -> Any:
    """A transform that the backend runs; plain strings are joined here."""
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return runnable.separator.join(value)
    texts = _as_texts(value)
    if texts is None:
        return planner.stop(
            runnable,
            "joins something that is not a list of planned texts",
            "Put StrOutputParser() behind the model.",
        )
    return planner.plan.join(texts, runnable.separator)


def _as_texts(value: Any) -> Sequence[Text] | None:
    if not isinstance(value, list | tuple):
        return None
    if not all(isinstance(item, str | Text) for item in value):
        return None
    return [Text((item,)) if isinstance(item, str) else item for item in value]


@rule(RunnableLambda)
def function(
    planner: Planner, runnable: RunnableLambda[Any, Any], value: Any, kwargs: dict[str, Any]
) -> Any:
    """Functions are opaque, but for `operator.itemgetter`."""
    getter = getattr(runnable, "func", None)
    if not isinstance(getter, itemgetter):
        return planner.stop(
            runnable,
            "is a function of yours, which planning does not run",
            "For a join use join_texts(separator); for a key, itemgetter or pick.",
        )
    if not isinstance(value, dict | list | tuple):
        return planner.stop(runnable, "gets an item of something that is not known yet")
    keys = cast("tuple[Any, tuple[Any, ...]]", getter.__reduce__())[1]
    try:
        items = tuple(value[key] for key in keys)
    except (KeyError, IndexError, TypeError):
        return planner.stop(runnable, f"gets items {keys}, which its input lacks")
    return items if len(items) > 1 else items[0]
