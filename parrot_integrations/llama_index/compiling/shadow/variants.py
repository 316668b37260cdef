"""Classes of the framework's that are others in the shadow, for what theirs do beside asking."""

from typing import Any

from llama_index.core.indices import (
    DocumentSummaryIndex,
    KeywordTableIndex,
    TreeIndex,
)
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import NodeWithScore

from parrot_integrations.llama_index.compiling.shadow.ending import ShadowEnd


class _Summaries(DocumentSummaryIndex):
    """A build that summarizes, and neither prints, stores nor embeds."""

    def _add_nodes_to_index(
        self, index_struct: Any, nodes: Any, show_progress: bool = False
    ) -> None:
        of_documents: dict[Any, list[NodeWithScore]] = {}
        for node in nodes:
            of_documents.setdefault(node.ref_doc_id, []).append(NodeWithScore(node=node))
        for each in of_documents.values():
            self._response_synthesizer.synthesize(query=self._summary_query, nodes=each)


class _Pipeline(IngestionPipeline):
    """A pipeline that compares nothing with a store, and starts no processes."""

    def run(
        self,
        show_progress: bool = False,
        *args: Any,
        num_workers: int | None = None,
        **kwargs: Any,
    ) -> Any:
        self._ends_with_side_effects(num_workers)
        return super().run(False, *args, **kwargs)

    async def arun(
        self,
        show_progress: bool = False,
        *args: Any,
        num_workers: int | None = None,
        **kwargs: Any,
    ) -> Any:
        self._ends_with_side_effects(num_workers)
        return await super().arun(False, *args, **kwargs)

    def _ends_with_side_effects(self, num_workers: int | None) -> None:
        if self.docstore is not None:
            raise ShadowEnd(
                "the docstore", "decides which nodes are new, and is the run's to change"
            )
        if num_workers is not None and num_workers > 1:
            raise ShadowEnd(
                "num_workers", "spreads the run over processes, which have plans of none"
            )


RUN: dict[type, type] = {IngestionPipeline: _Pipeline}
"""What a copy in the shadow is in place of its original's class."""

BUILT: dict[type, type] = {
    DocumentSummaryIndex: _Summaries,
    KeywordTableIndex: KeywordTableIndex,
    TreeIndex: TreeIndex,
}
"""What the shadow builds in place of an index."""
