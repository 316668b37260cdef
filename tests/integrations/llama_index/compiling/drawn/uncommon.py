"""Objects that are used in uncommon ways: from threads, side by side, copied, changed, cancelled."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any

from llama_index.core import TreeIndex
from llama_index.core.extractors import KeywordExtractor
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.prompts import PromptTemplate
from llama_index.core.response_synthesizers import BaseSynthesizer
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.types import BaseOutputParser

from tests.integrations.llama_index.compiling.drawn import synthesizers, texts
from tests.integrations.llama_index.compiling.drawn.case import MODES, Case, Fact, World
from tests.integrations.llama_index.compiling.drawn.indices import told

_TIMES = range(3)


class Shouting(BaseOutputParser):
    """A user's parser."""

    def __init__(self, calls: list[str]) -> None:
        self._calls = calls

    def parse(self, output: str) -> str:
        self._calls.append(f"parses {output!r}")
        return output.upper()

    def format(self, query: str) -> str:
        self._calls.append("formats")
        return f"{query}\nIn short!"

    def _format_message(self, message: Any) -> Any:
        self._calls.append("formats a message")
        return message


def _synthesizer(world: World, **fixed: Any) -> BaseSynthesizer:
    kind = world.rng.choice(["tree_summarize", "accumulate", "compact"])
    synthesizers.window(world, kind)
    fixed = {"streaming": False, "output_cls": None, **fixed}
    return synthesizers.synthesizer(world, kind, **fixed)


def _pipeline(world: World, **options: Any) -> IngestionPipeline:
    splitter = SentenceSplitter(chunk_size=60, chunk_overlap=5)
    keywords = KeywordExtractor(llm=world.llm, show_progress=False)
    return IngestionPipeline(transformations=[splitter, keywords], **options)


def threads(world: World) -> Case:
    query, found = texts.question(world), [node.text for node in texts.nodes(world)]

    def ask(subject: Any) -> Any:
        with ThreadPoolExecutor(len(_TIMES)) as pool:
            return [*pool.map(lambda n: subject.get_response(f"{query} {n}", found), _TIMES)]

    return Case(_synthesizer(world), ask, concurrent=True)


def gathered(world: World) -> Case:
    query, found = texts.question(world), [node.text for node in texts.nodes(world)]

    async def aask(subject: Any) -> Any:
        runs = [subject.aget_response(f"{query} {number}", found) for number in _TIMES]
        return await asyncio.gather(*runs)

    return Case(_synthesizer(world), lambda _: None, aask, "async", concurrent=True)


def by_position(world: World) -> Case:
    """Arguments that are mostly given by name."""
    found = texts.documents(world)
    if world.chance(0.5):
        ask = lambda subject: subject.run(True, found)  # noqa: E731
        return Case(_pipeline(world), ask, None, world.rng.choice(("sync", "loop")), True)
    synthesizers.window(world, "tree_summarize")
    splitter = SentenceSplitter(chunk_size=60, chunk_overlap=5)
    built = lambda build: told(build(found, None, True, None, [splitter], llm=world.llm))  # noqa: E731
    return Case(TreeIndex.from_documents, built)


def parsed(world: World) -> Case:
    template = PromptTemplate("{context_str} {query_str}", output_parser=Shouting(world.calls))
    kind = world.rng.choice(["tree_summarize", "accumulate"])
    synthesizers.window(world, kind)
    name = "summary_template" if kind == "tree_summarize" else "text_qa_template"
    object_asked = Fact if world.chance(0.5) else None
    fixed: dict[str, Any] = {"streaming": False, "output_cls": object_asked, name: template}
    query, found = texts.question(world), texts.scored(texts.nodes(world))
    return Case(
        synthesizers.synthesizer(world, kind, **fixed),
        lambda subject: subject.synthesize(query, found),
        lambda subject: subject.asynthesize(query, found),
        world.rng.choice(MODES),
        concurrent=True,
    )


def changed(world: World) -> Case:
    """Its prompts are changed, and it is copied, when it is compiled already."""
    query, found = texts.question(world), texts.scored(texts.nodes(world))
    made = _synthesizer(world)
    name = "summary_template" if "summary_template" in made.get_prompts() else "text_qa_template"
    copies = world.chance(0.5)

    def ask(subject: Any) -> Any:
        subject = deepcopy(subject) if copies else subject
        subject.update_prompts({name: PromptTemplate("So: {context_str}. {query_str}")})
        return [subject.synthesize(query, found), sorted(subject.get_prompts())]

    return Case(made, ask, concurrent=True)


def stored(world: World) -> Case:
    """With a document store whose strategy has it warn, and documents that it knows by then."""
    strategy = world.rng.choice(["upserts", "duplicates_only", "upserts_and_delete"])
    made = _pipeline(world, docstore=SimpleDocumentStore(), docstore_strategy=strategy)
    found = texts.documents(world)

    def ask(subject: Any) -> Any:
        first = subject.run(documents=found[:1])
        return [first, subject.run(documents=found), sorted(subject.docstore.docs)]

    return Case(made, ask, None, world.rng.choice(("sync", "loop")), concurrent=True)


_UNCOMMON = (threads, gathered, by_position, parsed, changed, stored)
UNCOMMON: dict[str, Callable[[World], Case]] = {
    "used uncommonly": lambda world: world.rng.choice(_UNCOMMON)(world)
}
