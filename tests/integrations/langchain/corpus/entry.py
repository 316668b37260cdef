"""What an entry of the corpus is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable

from parrot_integrations.langchain import ChatParrot

Build = Callable[[ChatParrot], Runnable[Any, Any]]


@dataclass(frozen=True)
class Entry:
    """A chain, what it is asked, and how many model calls that takes.

    `ordered`: no step runs beside another, so that events have one order. `key` names what of the
    configuration tells runs apart that remember: a chat's session, a graph's thread. `fails`: the run
    ends with an error, as it should.
    """

    build: Build
    input: Any
    calls: int
    ordered: bool = False
    key: str | None = None
    fails: bool = False

    def config(self, run: int) -> dict[str, Any]:
        """The configuration of one of several runs."""
        return {"configurable": {self.key: f"{self.key}-{run}"}} if self.key else {}


def ask(template: str, llm: Runnable[Any, Any]) -> Runnable[Any, str]:
    """Prompt, model and parser, the commonest chain there is."""
    return ChatPromptTemplate.from_template(template) | llm | StrOutputParser()
