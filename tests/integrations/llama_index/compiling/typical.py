"""One case of each class as people write it: sync, one call after the other, nothing drawn."""

from collections.abc import Callable
from typing import Any

from llama_index.core import DocumentSummaryIndex, KeywordTableIndex, SummaryIndex, TreeIndex
from llama_index.core.chat_engine import (
    CondensePlusContextChatEngine,
    CondenseQuestionChatEngine,
    ContextChatEngine,
)
from llama_index.core.extractors import (
    KeywordExtractor,
    QuestionsAnsweredExtractor,
    SummaryExtractor,
    TitleExtractor,
)
from llama_index.core.indices.query.query_transform import HyDEQueryTransform
from llama_index.core.indices.query.query_transform.base import StepDecomposeQueryTransform
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.query_engine import (
    MultiStepQueryEngine,
    RetrieverQueryEngine,
    RouterQueryEngine,
    SubQuestionQueryEngine,
    TransformQueryEngine,
)
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import Document, TextNode
from llama_index.core.selectors import LLMMultiSelector
from llama_index.core.tools import QueryEngineTool

from tests.integrations.llama_index.compiling.answers import WORDS
from tests.integrations.llama_index.compiling.drawn.case import Case, World
from tests.integrations.llama_index.compiling.drawn.retrieving import Overlapping
from tests.integrations.llama_index.compiling.drawn.texts import scored

_QUERY = "What is said of the river and the stone?"


def _text(world: World, words: int) -> str:
    return " ".join(world.rng.choices(WORDS, k=words)).capitalize() + "."


def _nodes(world: World, count: int = 8, words: int = 220) -> list[TextNode]:
    return [TextNode(text=_text(world, words), id_=f"node-{n}") for n in range(count)]


def _window(world: World, refining: bool = False) -> None:
    world.llm.context_window = 1000 if refining else 400
    world.llm.max_tokens = 32


def _synthesizer(mode: str) -> Callable[[World], Case]:
    def case(world: World) -> Case:
        _window(world, mode in ("refine", "compact"))
        made = get_response_synthesizer(llm=world.llm, response_mode=mode)
        nodes = scored(_nodes(world))
        return Case(made, lambda subject: subject.synthesize(_QUERY, nodes))

    return case


def _engine(world: World, mode: str = "tree_summarize", count: int = 6) -> RetrieverQueryEngine:
    _window(world)
    retriever = Overlapping(_nodes(world, count), world.calls, "it", count)
    made = get_response_synthesizer(llm=world.llm, response_mode=mode)
    return RetrieverQueryEngine(retriever, made)


def _asked(engine: Any) -> Case:
    return Case(engine, lambda subject: subject.query(_QUERY))


def _summary_index(world: World) -> Case:
    _window(world)
    index = SummaryIndex(_nodes(world))
    return _asked(index.as_query_engine(llm=world.llm, response_mode="tree_summarize"))


def _tools(world: World) -> list[QueryEngineTool]:
    return [
        QueryEngineTool.from_defaults(_engine(world), name=name, description=f"Knows {name}.")
        for name in ("rivers", "stones")
    ]


def _sub_question(world: World) -> Case:
    engine = SubQuestionQueryEngine(
        question_gen=LLMQuestionGenerator.from_defaults(llm=world.llm),
        query_engine_tools=_tools(world),
        response_synthesizer=get_response_synthesizer(
            llm=world.llm, response_mode="tree_summarize"
        ),
        use_async=False,
        verbose=False,
    )
    return _asked(engine)


def _router(world: World) -> Case:
    selector = LLMMultiSelector.from_defaults(llm=world.llm)
    return _asked(RouterQueryEngine.from_defaults(_tools(world), llm=world.llm, selector=selector))


def _multi_step(world: World) -> Case:
    engine = MultiStepQueryEngine(
        query_engine=_engine(world),
        query_transform=StepDecomposeQueryTransform(llm=world.llm),
        response_synthesizer=get_response_synthesizer(
            llm=world.llm, response_mode="tree_summarize"
        ),
        num_steps=2,
        stop_fn=lambda _: False,
        index_summary="Of rivers.",
    )
    return _asked(engine)


def _documents(world: World, count: int = 3, words: int = 300) -> list[Document]:
    return [Document(text=_text(world, words), id_=f"doc-{n}") for n in range(count)]


def _summary_options(world: World) -> dict[str, Any]:
    _window(world)
    splitter = SentenceSplitter(chunk_size=120, chunk_overlap=10)
    return {
        "llm": world.llm,
        "embed_model": world.embed_model,
        "transformations": [splitter],
    }


def _document_summary_build(world: World) -> Case:
    options, documents = _summary_options(world), _documents(world)
    return Case(
        DocumentSummaryIndex.from_documents, lambda build: bool(build(documents, **options))
    )


def _document_summary(world: World) -> Case:
    index = DocumentSummaryIndex.from_documents(_documents(world), **_summary_options(world))
    return _asked(
        index.as_query_engine(llm=world.llm, response_mode="tree_summarize", retriever_mode="llm")
    )


def _tree_build(world: World) -> Case:
    _window(world)
    nodes = _nodes(world, 12, 60)
    return Case(TreeIndex, lambda build: bool(build(nodes=[*nodes], llm=world.llm, num_children=3)))


def _keyword_build(world: World) -> Case:
    nodes = _nodes(world, 8, 60)
    return Case(KeywordTableIndex, lambda build: bool(build(nodes=[*nodes], llm=world.llm)))


def _extractor(kind: Any) -> Callable[[World], Case]:
    def case(world: World) -> Case:
        nodes = _nodes(world, 8, 40)
        made = kind(llm=world.llm, show_progress=False, num_workers=2)
        return Case(made, lambda subject: subject.extract(nodes), concurrent=True)

    return case


def _pipeline(world: World) -> Case:
    kinds = (SummaryExtractor, QuestionsAnsweredExtractor, KeywordExtractor)
    steps = [kind(llm=world.llm, show_progress=False, num_workers=2) for kind in kinds]
    splitter = SentenceSplitter(chunk_size=100, chunk_overlap=10)
    made = IngestionPipeline(transformations=[splitter, *steps])
    documents = _documents(world, 1, 200)
    return Case(made, lambda subject: subject.run(documents=documents), concurrent=True)


def _chat(make: Callable[[World], Any]) -> Callable[[World], Case]:
    def case(world: World) -> Case:
        turns = [_QUERY, "And who saw it?"]
        return Case(make(world), lambda subject: [str(subject.chat(turn)) for turn in turns])

    return case


def _context_options(world: World) -> dict[str, Any]:
    _window(world, refining=True)
    return {
        "retriever": Overlapping(_nodes(world, 6), world.calls, "it", 6),
        "memory": ChatMemoryBuffer.from_defaults(token_limit=200),
        "llm": world.llm,
    }


def _condense_question(world: World) -> Any:
    memory = ChatMemoryBuffer.from_defaults(token_limit=200)
    return CondenseQuestionChatEngine.from_defaults(_engine(world), memory=memory, llm=world.llm)


TYPICAL: dict[str, Callable[[World], Case]] = {
    **{
        mode: _synthesizer(mode)
        for mode in (
            "tree_summarize",
            "refine",
            "compact",
            "accumulate",
            "compact_accumulate",
            "simple_summarize",
        )
    },
    "RetrieverQueryEngine": lambda world: _asked(_engine(world)),
    "SummaryIndex": _summary_index,
    "SubQuestionQueryEngine": _sub_question,
    "RouterQueryEngine": _router,
    "TransformQueryEngine": lambda world: _asked(
        TransformQueryEngine(_engine(world), HyDEQueryTransform(llm=world.llm))
    ),
    "MultiStepQueryEngine": _multi_step,
    "DocumentSummaryIndex, built": _document_summary_build,
    "DocumentSummaryIndex": _document_summary,
    "TreeIndex, built": _tree_build,
    "KeywordTableIndex, built": _keyword_build,
    "IngestionPipeline": _pipeline,
    "TitleExtractor": _extractor(TitleExtractor),
    "SummaryExtractor": _extractor(SummaryExtractor),
    "QuestionsAnsweredExtractor": _extractor(QuestionsAnsweredExtractor),
    "KeywordExtractor": _extractor(KeywordExtractor),
    "CondenseQuestionChatEngine": _chat(_condense_question),
    "CondensePlusContextChatEngine": _chat(
        lambda world: CondensePlusContextChatEngine.from_defaults(**_context_options(world))
    ),
    "ContextChatEngine": _chat(
        lambda world: ContextChatEngine.from_defaults(**_context_options(world))
    ),
}
