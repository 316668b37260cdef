"""Retrievers and postprocessors of a user's own: each is asked exactly once, in the same order."""

from collections import Counter
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from pydantic import PrivateAttr

from tests.integrations.llama_index.compiling.drawn.case import World


class Overlapping(BaseRetriever):
    """The nodes that have most words in common with the query."""

    def __init__(self, nodes: list[TextNode], calls: list[str], name: str, most: int) -> None:
        super().__init__()
        self._nodes = nodes
        self._calls = calls
        self._name = name
        self._most = most

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        self._calls.append(f"{self._name} retrieves {query_bundle.query_str!r}")
        if "FAIL" in query_bundle.query_str:
            raise LookupError("nothing there")
        words = Counter(query_bundle.query_str.lower().split())
        shares = [(sum(words[w] for w in n.text.lower().split()), -i) for i, n in self._numbered()]
        best = sorted(zip(shares, self._nodes, strict=True), key=lambda p: p[0], reverse=True)
        return [NodeWithScore(node=n, score=float(share)) for (share, _), n in best[: self._most]]

    def _numbered(self) -> Any:
        return enumerate(self._nodes)


class AsyncOverlapping(Overlapping):
    """With an asynchronous way of its own."""

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        self._calls.append(f"{self._name} is awaited")
        return self._retrieve(query_bundle)


class Marking(BaseNodePostprocessor):
    """Scores each node higher, and takes the first four."""

    _calls: list[str] = PrivateAttr()

    def __init__(self, calls: list[str]) -> None:
        super().__init__()
        self._calls = calls

    @classmethod
    def class_name(cls) -> str:
        return "Marking"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        self._calls.append(f"{len(nodes)} nodes are marked")
        return [NodeWithScore(node=each.node, score=(each.score or 0) + 1) for each in nodes[:4]]


def retriever(world: World, found: list[TextNode], name: str = "it") -> BaseRetriever:
    kind = world.rng.choice([Overlapping, AsyncOverlapping])
    return kind(found, world.calls, name, world.rng.randint(1, 6))


def postprocessors(world: World) -> list[BaseNodePostprocessor]:
    return [Marking(world.calls)] if world.chance(0.3) else []
