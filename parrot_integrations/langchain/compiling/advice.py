"""Why a step without a rule is not planned, and what its user can do about it: by kind of step."""

from typing import Any

from langchain_core.language_models import BaseLanguageModel
from langchain_core.output_parsers.base import BaseLLMOutputParser
from langchain_core.prompts import BasePromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableGenerator
from langchain_core.tools import BaseTool

from parrot_integrations.langchain.models.llms import ParrotLLM
from parrot_integrations.planning.values import BreakError

BEHIND = "What comes behind it is planned when its output is there."

_BY_KIND: list[tuple[type | str, str, str]] = [
    (
        ParrotLLM,
        "completes raw text, and only chat calls are planned",
        "Use ChatParrot for calls that are to be planned.",
    ),
    (
        BaseLanguageModel,
        "is another model, whose calls the backend can't start",
        f"Use ChatParrot for calls that are to be planned. {BEHIND}",
    ),
    (
        BaseLLMOutputParser,
        "parses an answer, which planning can't do before it is there",
        f"{BEHIND} Where only a text goes on, put StrOutputParser() in its place, or a function that "
        "takes one string out of a JSON answer: @semantic_transform(transforms.json_field('key')).",
    ),
    (
        BaseRetriever,
        "retrieves, which only the run does",
        "What comes behind it is planned when the documents are there. Keep calls that do not need "
        "them out of its branch, beside it in a dict or an assign: they start at once.",
    ),
    (
        BaseTool,
        "is a tool, which only the run may call",
        f"{BEHIND} Keep calls that do not need its output out of its branch: they start at once.",
    ),
    (
        RunnableGenerator,
        "is a generator of yours, which planning does not run",
        f"{BEHIND} A function from text to text in its place can be planned through: declare it by "
        "@semantic_transform.",
    ),
    (
        BasePromptTemplate,
        "is a template of a class that planning does not know",
        "PromptTemplate and ChatPromptTemplate themselves are planned; a subclass may format as it "
        "likes.",
    ),
    (
        "Pregel",
        "is a graph, which planning does not look into here",
        "Compile the graph itself: compile(graph).",
    ),
    (
        "Chain",
        "is a classic chain whose loop planning does not know",
        f"{BEHIND} The same written as a sequence of prompts and models is planned.",
    ),
]

_CUSTOM = (
    "is a runnable of a class that planning does not know",
    f"{BEHIND} Put the chain that it wraps together with |, and declare what it does to a text by "
    "@semantic_transform.",
)


def unplanned(step: Any) -> BreakError:
    """The break at a step for which there is no rule."""
    mro = type(step).__mro__
    names = {kind.__name__ for kind in mro}
    for kind, reason, remedy in _BY_KIND:
        if kind in (names if isinstance(kind, str) else mro):
            return BreakError(reason, remedy)
    return BreakError(*_CUSTOM)
