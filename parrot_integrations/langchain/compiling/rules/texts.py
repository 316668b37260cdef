"""Rules for steps on texts: the string parser and joins."""

from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.output_parsers import StrOutputParser

from parrot_integrations.langchain.compiling.join import JoinTexts
from parrot_integrations.langchain.compiling.planner import Planner, StepContext, rule
from parrot_integrations.planning.transforms import join, transformed
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
