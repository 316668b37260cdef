"""Indexes that ask a model while they are built, and what they answer then."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from llama_index.core import DocumentSummaryIndex, KeywordTableIndex, TreeIndex
from llama_index.core.data_structs import KeywordTable
from llama_index.core.indices.base import BaseIndex
from llama_index.core.node_parser import SentenceSplitter, TokenTextSplitter
from llama_index.core.prompts import PromptTemplate

from tests.integrations.llama_index.compiling.drawn import synthesizers, texts
from tests.integrations.llama_index.compiling.drawn.case import Case, World
from tests.integrations.llama_index.compiling.drawn.engines import asking

_OWN_SUMMARY = texts.PREAMBLE + "Write down what of this matters:\n{context_str}\nIn short: "


def told(index: BaseIndex[Any]) -> Any:
    """All that the index holds; which class it is, too."""
    documents = index.docstore.docs
    struct = index.index_struct
    if isinstance(struct, KeywordTable):  # which has sets of ids, that are in any order
        struct = {
            keyword: sorted(documents[node_id].get_content() for node_id in ids)
            for keyword, ids in struct.table.items()
        }
    return [type(index).__name__, struct, {k: node.to_dict() for k, node in documents.items()}]


def building(world: World, kind: type[BaseIndex[Any]], options: dict[str, Any]) -> Case:
    """From nodes by its class, or from documents by its class method."""
    mode = world.rng.choice(("sync", "loop"))
    if world.chance(0.5) and kind is not DocumentSummaryIndex:
        found = [n for n in texts.nodes(world, 12, 60) if n.text.strip() or world.chance(0.1)]
        ask = lambda subject: told(subject(nodes=[*found], **options))  # noqa: E731
        return Case(kind, ask, None, mode, options.get("use_async", False))
    found = texts.documents(world)
    options["transformations"] = [splitter(world)]
    return Case(
        kind.from_documents,
        lambda subject: told(subject(found, **options)),
        None,
        mode,
        options.get("use_async", False),
    )


def splitter(world: World) -> Any:
    size = world.rng.choice([40, 80, 200])
    kind = world.rng.choice([SentenceSplitter, TokenTextSplitter])
    return kind(chunk_size=size, chunk_overlap=10)


def tree(world: World) -> Case:
    synthesizers.window(world, "tree_summarize")
    options: dict[str, Any] = {
        "llm": world.llm,
        "num_children": world.rng.randint(2, 4),
        "use_async": world.chance(0.3),
        "show_progress": world.chance(0.3),
    }
    if world.chance(0.5):
        options["summary_template"] = PromptTemplate(_OWN_SUMMARY)
    return building(world, TreeIndex, options)


def keywords(world: World) -> Case:
    options: dict[str, Any] = {
        "llm": world.llm,
        "use_async": world.chance(0.3),
        "show_progress": world.chance(0.3),
    }
    return building(world, KeywordTableIndex, options)


def _summary_options(world: World) -> dict[str, Any]:
    synthesizers.window(world, "refine")
    options: dict[str, Any] = {
        "llm": world.llm,
        "embed_model": world.embed_model,
        "show_progress": world.chance(0.3),
    }
    if world.chance(0.6):
        kind = world.rng.choice([*synthesizers.CLASSES])
        fixed = {"streaming": False, "output_cls": None}
        options["response_synthesizer"] = synthesizers.synthesizer(world, kind, **fixed)
    if world.chance(0.3):
        options["summary_query"] = texts.question(world)
    if world.chance(0.3):
        options["embed_summaries"] = False
    return options


def document_summary(world: World) -> Case:
    options = _summary_options(world)
    made = options.get("response_synthesizer")
    case = building(world, DocumentSummaryIndex, options)
    case.concurrent = getattr(made, "_use_async", False)
    return case


def _built(build: Callable[[], BaseIndex[Any]]) -> BaseIndex[Any]:
    """The first that can be built: empty texts are too much for some indexes."""
    while True:
        with suppress(Exception):
            return build()


def document_summary_engine(world: World) -> Case:
    options = _summary_options(world)
    options["transformations"] = [splitter(world)]
    index = _built(
        lambda: DocumentSummaryIndex.from_documents(texts.documents(world, most=3), **options)
    )
    kind = world.rng.choice([*synthesizers.CLASSES])
    made = synthesizers.options(world, kind)
    made.pop("structured_answer_filtering", None)
    by_model = world.chance(0.5) or not options.get("embed_summaries", True)
    mode = "llm" if by_model else "embedding"
    engine = index.as_query_engine(retriever_mode=mode, response_mode=kind, **made)
    return asking(world, engine)


def tree_engine(world: World) -> Case:
    """Goes down the tree by asking which child it is."""
    synthesizers.window(world, "refine")
    index = _built(
        lambda: TreeIndex(
            nodes=texts.nodes(world, 9, 60), llm=world.llm, num_children=world.rng.randint(2, 3)
        )
    )
    options: dict[str, Any] = {"llm": world.llm, "streaming": world.chance(0.25)}
    if len(index.index_struct.all_nodes) > index.num_children and world.chance(0.4):
        options["retriever_mode"] = "root"
    elif world.chance(0.5):
        options |= {"retriever_mode": "all_leaf", "response_mode": "tree_summarize"}
    else:
        options["child_branch_factor"] = world.rng.randint(1, 2)
    return asking(world, index.as_query_engine(**options))


INDICES: dict[str, Callable[[World], Case]] = {
    "TreeIndex, built": tree,
    "KeywordTableIndex, built": keywords,
    "DocumentSummaryIndex, built": document_summary,
    "DocumentSummaryIndex": document_summary_engine,
    "TreeIndex": tree_engine,
}
