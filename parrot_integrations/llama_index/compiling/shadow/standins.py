"""What stands in the shadow for objects whose own code would not do: caches, retrievers that ask."""

from typing import Any

from llama_index.core.indices.document_summary.retrievers import (
    DocumentSummaryIndexLLMRetriever,
)
from llama_index.core.indices.utils import (
    default_format_node_batch_fn,
    default_parse_choice_select_answer_fn,
)
from llama_index.core.ingestion import IngestionCache
from llama_index.core.ingestion.cache import SimpleCache
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.storage.kvstore import SimpleKVStore

from parrot_integrations.llama_index.compiling.shadow.copies import STANDS, Opaque, ShadowCopies
from parrot_integrations.llama_index.compiling.shadow.ending import ShadowEnd
from parrot_integrations.llama_index.compiling.shadow.operations import isolated


class _ReadCache:
    """The cache of a pipeline: what is in memory is found in it, and nothing is put there."""

    def __init__(self, original: IngestionCache, _: ShadowCopies) -> None:
        self._original = original

    def get(self, *args: Any, **kwargs: Any) -> Any:
        if type(self._original.cache) is not SimpleCache:
            raise ShadowEnd("the cache", "is asked by the run alone: a hit must not cost a call")
        return isolated(self._original.get(*args, **kwargs))

    def put(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run will."""


class _Choosing(DocumentSummaryIndexLLMRetriever):
    """Asks for the choices among all batches of summaries, and ends where one is not known yet."""

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        chosen = super()._retrieve(query_bundle)
        if vars(self)["awaits"]:
            raise ShadowEnd(
                "the retriever",
                "chooses by answers that are not there yet",
                "What comes behind it is planned when they are.",
            )
        return chosen


def _choosing(original: DocumentSummaryIndexLLMRetriever, copies: ShadowCopies) -> Any:
    parse, docstore = original._parse_choice_select_answer_fn, original._index.docstore
    is_pure = (
        parse is default_parse_choice_select_answer_fn
        and original._format_node_batch_fn is default_format_node_batch_fn
        and type(docstore) is SimpleDocumentStore
        and type(docstore._kvstore) is SimpleKVStore
    )
    if not is_pure:
        return Opaque(original, copies)
    shadow: Any = object.__new__(_Choosing)

    def parsed(answer: str, count: int) -> Any:
        if not copies.ledger.markers.is_in(answer):
            return parse(answer, count)
        shadow.awaits = True
        return [], []

    vars(shadow).update(
        vars(original),
        awaits=False,
        _verbose=False,
        _llm=copies.of(original._llm),
        _choice_select_prompt=copies.of(original._choice_select_prompt),
        _parse_choice_select_answer_fn=parsed,
    )
    return shadow


STANDS[IngestionCache] = _ReadCache
STANDS[DocumentSummaryIndexLLMRetriever] = _choosing
