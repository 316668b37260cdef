"""A user's own functions and classes around the framework's, and objects used in uncommon ways."""

import random
from collections.abc import Callable
from typing import Any

from llama_index.core.base.response.schema import Response
from llama_index.core.query_engine import CustomQueryEngine, RetrieverQueryEngine
from llama_index.core.response_synthesizers import BaseSynthesizer, TreeSummarize
from llama_index.core.schema import NodeWithScore

from parrot_integrations.llama_index import Parrot
from tests.integrations.llama_index.compiling.drawn import engines, retrieving, synthesizers, texts
from tests.integrations.llama_index.compiling.drawn.case import MODES, Case, Fact, World

_PLAIN = {"streaming": False, "output_cls": None}


def _made(world: World) -> BaseSynthesizer:
    kind = world.rng.choice([*synthesizers.CLASSES])
    synthesizers.window(world, "refine")
    return synthesizers.synthesizer(world, kind, **_PLAIN)


def function(world: World) -> Case:
    """Retrieves once, and asks twice, with the second question made of the first answer."""
    found = retrieving.retriever(world, texts.nodes(world))
    first, second = _made(world), _made(world)
    query, mode = texts.question(world), world.rng.choice(("sync", "async"))
    shuffled = world.chance(0.3)

    def answer(asked: str) -> Any:
        nodes = found.retrieve(asked)
        if shuffled:
            random.shuffle(nodes)
        response = first.synthesize(asked, nodes)
        world.calls.append(f"first answered {str(response)!r}")
        return [response, second.synthesize(f"{asked} Not {response}?", nodes[:2])]

    async def aanswer(asked: str) -> Any:
        nodes = await found.aretrieve(asked)
        response = await first.asynthesize(asked, nodes)
        world.calls.append(f"first answered {str(response)!r}")
        return [response, await second.asynthesize(f"{asked} Not {response}?", nodes[:2])]

    if mode == "async":
        return Case(aanswer, None, lambda subject: subject(query), mode, concurrent=True)
    return Case(answer, lambda subject: subject(query), concurrent=True)


class Insistent(TreeSummarize):
    """Asks with an exclamation mark, and notes it."""

    calls: list[str]

    def get_response(self, query_str: str, text_chunks: Any, **kwargs: Any) -> Any:
        self.calls.append(f"{len(text_chunks)} chunks")
        return super().get_response(query_str + "!", text_chunks, **kwargs)


class Twofold(CustomQueryEngine):
    """Asks the model itself, and then a synthesizer."""

    llm: Parrot
    synthesizer: BaseSynthesizer
    nodes: list[NodeWithScore]
    calls: list[str]

    def custom_query(self, query_str: str) -> Any:
        self.calls.append(f"asked {query_str!r}")
        keyword = self.llm.complete(f"Name what matters: {query_str}").text
        response = self.synthesizer.synthesize(f"{query_str} ({keyword})", self.nodes)
        return Response(f"{keyword}: {response}", response.source_nodes)


class Doubting(Parrot):
    """A model of a user's own, which asks in other words."""

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        return super().complete(f"Is it so? {prompt}", formatted, **kwargs)

    def chat(self, messages: Any, **kwargs: Any) -> Any:
        return super().chat([texts.ChatMessage("Doubt.", role="system"), *messages], **kwargs)


def classes(world: World) -> Case:
    kind = world.rng.choice(["synthesizer", "engine", "around it", "model", "structured"])
    synthesizers.window(world, "tree_summarize")
    if kind == "engine":
        engine = Twofold(
            llm=world.llm,
            synthesizer=_made(world),
            nodes=texts.scored(texts.nodes(world)),
            calls=world.calls,
        )
        return engines.asking(world, engine)
    if kind == "structured":
        made = TreeSummarize(llm=world.llm.as_structured_llm(Fact))
    elif kind == "model":
        own = Doubting(**{**world.llm.model_dump(), "base_url": world.llm.base_url})
        own.context_window = world.llm.context_window
        made = TreeSummarize(llm=own, use_async=world.chance(0.3))
    else:
        made = Insistent(llm=world.llm, use_async=world.chance(0.3))
        made.calls = world.calls
    found = retrieving.retriever(world, texts.nodes(world))
    return engines.asking(world, RetrieverQueryEngine(found, made))


def twice(world: World) -> Case:
    """One object asked again and again: nothing of a run stays in it for the next."""
    engine = engines.over_retriever(world, **_PLAIN)
    queries = [texts.question(world) for _ in range(2)]
    queries.append(queries[0])

    async def aask(subject: Any) -> Any:
        return [await subject.aquery(query) for query in queries]

    def ask(subject: Any) -> Any:
        return [subject.query(query) for query in queries]

    return Case(engine, ask, aask, world.rng.choice(MODES), concurrent=True)


def left(world: World) -> Case:
    """A stream of which only the beginning is read."""
    kind = world.rng.choice([*synthesizers.CLASSES])
    synthesizers.window(world, kind)
    fixed: dict[str, Any] = {"streaming": True, "output_cls": None}
    fixed |= {"structured_answer_filtering": False} if kind in ("refine", "compact") else {}
    made = synthesizers.synthesizer(world, kind, **fixed)
    query, found = texts.question(world), texts.scored(texts.nodes(world))
    count = world.rng.randint(0, 2)

    def ask(subject: Any) -> Any:
        stream = subject.synthesize(query, found).response_gen
        chunks = [chunk for chunk, _ in zip(stream, range(count), strict=False)]
        stream.close()
        return chunks

    async def aask(subject: Any) -> Any:
        stream = (await subject.asynthesize(query, found)).response_gen
        chunks = []
        while len(chunks) < count:
            chunks.append(await anext(stream, None))
        await stream.aclose()
        return chunks

    mode = "sync" if kind in ("accumulate", "compact_accumulate") else world.rng.choice(MODES)
    return Case(made, ask, aask, mode, concurrent=True)


OWN: dict[str, Callable[[World], Case]] = {
    "a function": function,
    "own classes": classes,
    "asked again": twice,
    "a stream that is left": left,
}
