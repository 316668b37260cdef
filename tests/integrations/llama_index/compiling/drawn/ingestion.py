"""Metadata extractors, alone and in ingestion pipelines."""

from collections.abc import Callable, Sequence
from typing import Any

from llama_index.core.extractors import (
    BaseExtractor,
    KeywordExtractor,
    QuestionsAnsweredExtractor,
    SummaryExtractor,
    TitleExtractor,
)
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import BaseNode, MetadataMode, TransformComponent
from llama_index.core.storage.docstore import SimpleDocumentStore

from tests.integrations.llama_index.compiling.drawn import texts
from tests.integrations.llama_index.compiling.drawn.case import MODES, Case, World
from tests.integrations.llama_index.compiling.drawn.indices import splitter

_EXTRACTORS = (TitleExtractor, SummaryExtractor, QuestionsAnsweredExtractor, KeywordExtractor)


class Lowering(TransformComponent):
    """A user's step."""

    calls: list[str]

    def __call__(self, nodes: Sequence[BaseNode], **_: Any) -> Sequence[BaseNode]:
        self.calls.append(f"lowered {len(nodes)}")
        for node in nodes:
            node.metadata["lowered"] = True
        return nodes


def extractor(world: World, kind: type[BaseExtractor]) -> BaseExtractor:
    options: dict[str, Any] = {
        "llm": world.llm,
        "num_workers": world.rng.randint(1, 5),
        "in_place": world.chance(0.6),
        "show_progress": world.chance(0.4),
        "metadata_mode": world.rng.choice([MetadataMode.ALL, MetadataMode.NONE]),
    }
    if kind is TitleExtractor:
        options["nodes"] = world.rng.randint(1, 5)
    if kind is SummaryExtractor:
        options["summaries"] = world.rng.sample(["prev", "self", "next"], world.rng.randint(1, 3))
    if kind is KeywordExtractor and world.chance(0.4):
        options["prompt_template"] = texts.PREAMBLE + "{keywords} words of {context_str}: "
    if kind is QuestionsAnsweredExtractor:
        options["questions"] = world.rng.randint(1, 4)
    if world.chance(0.15):
        options["raise_on_error"] = False
    return kind(**options)


def alone(world: World, kind: type[BaseExtractor]) -> Case:
    made, found = extractor(world, kind), texts.nodes(world, 8, 60)
    names = world.rng.choice(["extract", "process_nodes", "call"])
    mode = world.rng.choice(MODES)
    ask, aask = {
        "extract": (lambda s: s.extract(found), lambda s: s.aextract(found)),
        "process_nodes": (lambda s: s.process_nodes(found), lambda s: s.aprocess_nodes(found)),
        "call": (lambda s: s(found), lambda s: s.acall(found)),
    }[names]

    async def ended(subject: Any) -> Any:
        return [await aask(subject), found]

    return Case(made, lambda subject: [ask(subject), found], ended, mode, concurrent=True)


def pipeline(world: World) -> Case:
    kinds = world.rng.sample(_EXTRACTORS, world.rng.randint(1, 4))
    splits = world.chance(0.95 if SummaryExtractor in kinds else 0.6)
    steps: list[TransformComponent] = [splitter(world)] if splits else []
    steps += [extractor(world, kind) for kind in kinds]
    if world.chance(0.3):
        steps.insert(world.rng.randint(0, len(steps)), Lowering(calls=world.calls))
    options: dict[str, Any] = {"disable_cache": world.chance(0.5)}
    if world.chance(0.3):
        options["docstore"] = SimpleDocumentStore()
    made, found = IngestionPipeline(transformations=steps, **options), texts.documents(world, 3, 90)
    asked = {"documents": found, "in_place": world.chance(0.7)}
    twice = world.chance(0.3)

    def ask(subject: Any) -> Any:
        first = subject.run(**asked)
        return [first, subject.run(**asked) if twice else None, found]

    async def aask(subject: Any) -> Any:
        first = await subject.arun(**asked)
        return [first, await subject.arun(**asked) if twice else None, found]

    return Case(made, ask, aask, world.rng.choice(MODES), concurrent=True)


def _alone(kind: type[BaseExtractor]) -> Callable[[World], Case]:
    return lambda world: alone(world, kind)


INGESTION: dict[str, Callable[[World], Case]] = {
    "IngestionPipeline": pipeline,
    **{kind.__name__: _alone(kind) for kind in _EXTRACTORS},
}
