"""Query engines over retrievers and indexes, and around other query engines."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from llama_index.core import SummaryIndex
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.indices.query.query_transform import HyDEQueryTransform
from llama_index.core.indices.query.query_transform.base import (
    BaseQueryTransform,
    DecomposeQueryTransform,
    ImageOutputQueryTransform,
    StepDecomposeQueryTransform,
)
from llama_index.core.query_engine import (
    MultiStepQueryEngine,
    RetrieverQueryEngine,
    RouterQueryEngine,
    SubQuestionQueryEngine,
    TransformQueryEngine,
)
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.response_synthesizers import TreeSummarize
from llama_index.core.schema import QueryBundle
from llama_index.core.selectors import LLMMultiSelector, LLMSingleSelector
from llama_index.core.tools import QueryEngineTool

from tests.integrations.llama_index.compiling.answers import WORDS
from tests.integrations.llama_index.compiling.drawn import retrieving, synthesizers, texts
from tests.integrations.llama_index.compiling.drawn.case import MODES, Case, World

_PLAIN = {"streaming": False, "output_cls": None}
"""What inner engines are: their answers are read as text."""


def asking(world: World, engine: BaseQueryEngine, query: Any = None) -> Case:
    query = query or texts.question(world)
    if world.chance(0.2) and isinstance(query, str):
        query = QueryBundle(query)
    mode = world.rng.choice(MODES)
    return Case(
        engine,
        lambda subject: subject.query(query),
        lambda subject: subject.aquery(query),
        mode,
        concurrent=True,
    )


def over_retriever(world: World, name: str = "it", **fixed: Any) -> RetrieverQueryEngine:
    kind = world.rng.choice([*synthesizers.CLASSES])
    synthesizers.window(world, kind if world.chance(0.5) else "refine")
    if kind in ("refine", "compact"):
        synthesizers.window(world, kind)
    found = texts.nodes(world)
    options = {
        "retriever": retrieving.retriever(world, found, name),
        "node_postprocessors": retrieving.postprocessors(world),
    }
    if world.chance(0.3):
        made = synthesizers.options(world, kind) | fixed
        made.pop("structured_answer_filtering", None)
        return RetrieverQueryEngine.from_args(response_mode=kind, **options, **made)
    made = synthesizers.synthesizer(world, kind, **fixed)
    return RetrieverQueryEngine(response_synthesizer=made, **options)


def over_summary_index(world: World, **fixed: Any) -> BaseQueryEngine:
    kind = world.rng.choice([*synthesizers.CLASSES])
    synthesizers.window(world, "refine")
    options = synthesizers.options(world, kind) | fixed
    options.pop("structured_answer_filtering", None)
    index = SummaryIndex(texts.nodes(world))
    return index.as_query_engine(response_mode=kind, **options)


def inner(world: World, name: str) -> BaseQueryEngine:
    if world.chance(0.3):
        return over_summary_index(world, **_PLAIN)
    return over_retriever(world, name, **_PLAIN)


def tools(world: World) -> list[QueryEngineTool]:
    names = [f"tool_{number}" for number in range(world.rng.randint(2, 3))]
    return [
        QueryEngineTool.from_defaults(
            inner(world, name), name=name, description=f"Knows the {world.rng.choice(WORDS)}."
        )
        for name in names
    ]


def retriever_engine(world: World) -> Case:
    return asking(world, over_retriever(world))


def summary_index_engine(world: World) -> Case:
    return asking(world, over_summary_index(world))


def sub_question(world: World) -> Case:
    engine = SubQuestionQueryEngine(
        question_gen=LLMQuestionGenerator.from_defaults(llm=world.llm),
        query_engine_tools=tools(world),
        response_synthesizer=synthesizers.synthesizer(world, _kind(world), **_no_class()),
        verbose=world.chance(0.5),
        use_async=world.chance(0.5),
    )
    return asking(world, engine)


def _kind(world: World) -> str:
    kind = world.rng.choice([*synthesizers.CLASSES])
    synthesizers.window(world, "refine")
    return kind


def _no_class() -> dict[str, Any]:
    return {"output_cls": None}


def router(world: World) -> Case:
    several = world.chance(0.5)
    found = tools(world)
    options: dict[str, Any] = {"llm": world.llm, "verbose": world.chance(0.5)}
    if world.chance(0.5) or not _CHOOSES_SELECTORS:
        kind = LLMMultiSelector if several else LLMSingleSelector
        options["selector"] = kind.from_defaults(llm=world.llm)
    else:
        options["select_multi"] = several
    if world.chance(0.3):
        options["summarizer"] = TreeSummarize(llm=world.llm, streaming=world.chance(0.5))
    try:
        return asking(world, RouterQueryEngine.from_defaults(found, **options))
    except ImportError:  # before 0.13 a function calling model's selector was in another package
        options["selector"] = LLMMultiSelector.from_defaults(llm=world.llm)
        return asking(world, RouterQueryEngine.from_defaults(found, **options))


# Before 0.13 what it chooses for models that call functions wants OpenAI's own package.
_CHOOSES_SELECTORS = find_spec("llama_index.core.query_pipeline") is None


class Politely(BaseQueryTransform):
    """A user's transform."""

    def __init__(self, calls: list[str]) -> None:
        self._calls = calls

    def _get_prompts(self) -> dict[str, Any]:
        return {}

    def _update_prompts(self, prompts: Any) -> None: ...

    def _run(self, query_bundle: QueryBundle, metadata: Any) -> QueryBundle:
        self._calls.append(f"politely {query_bundle.query_str!r}")
        return QueryBundle(f"Please: {query_bundle.query_str}")


def transform(world: World) -> Case:
    made: dict[str, Callable[[], BaseQueryTransform]] = {
        "hyde": lambda: HyDEQueryTransform(llm=world.llm, include_original=world.chance(0.5)),
        "decompose": lambda: DecomposeQueryTransform(llm=world.llm, verbose=world.chance(0.5)),
        "image": ImageOutputQueryTransform,
        "own": lambda: Politely(world.calls),
    }
    chosen = made[world.rng.choice([*made])]()
    told = {"index_summary": "Of harbours."} if world.chance(0.5) else None
    return asking(world, TransformQueryEngine(over_retriever(world), chosen, told))


def multi_step(world: World) -> Case:
    options: dict[str, Any] = {"num_steps": world.rng.randint(1, 4)}
    if world.chance(0.3):
        options["stop_fn"] = lambda told: _stop(world, told)
    engine = MultiStepQueryEngine(
        query_engine=inner(world, "it"),
        query_transform=StepDecomposeQueryTransform(llm=world.llm, verbose=world.chance(0.5)),
        response_synthesizer=synthesizers.synthesizer(world, _kind(world), **_no_class()),
        index_summary="Of harbours.",
        **options,
    )
    return asking(world, engine)


def _stop(world: World, told: dict[str, Any]) -> bool:
    world.calls.append(f"stop at {told['query_bundle'].query_str!r}?")
    return "None" in told["query_bundle"].query_str


ENGINES: dict[str, Callable[[World], Case]] = {
    "RetrieverQueryEngine": retriever_engine,
    "SummaryIndex": summary_index_engine,
    "SubQuestionQueryEngine": sub_question,
    "RouterQueryEngine": router,
    "TransformQueryEngine": transform,
    "MultiStepQueryEngine": multi_step,
}
