"""The corpus: chains, agents and graphs as people write them, not as a planner would like them."""

from tests.integrations.langchain.corpus.chats import CHATS
from tests.integrations.langchain.corpus.documents import DOCUMENT_CHAINS
from tests.integrations.langchain.corpus.entry import Entry
from tests.integrations.langchain.corpus.graph_fans import GRAPH_FANS
from tests.integrations.langchain.corpus.graph_loops import GRAPH_LOOPS
from tests.integrations.langchain.corpus.judging import JUDGING
from tests.integrations.langchain.corpus.prompting import PROMPTING
from tests.integrations.langchain.corpus.retrieval import RETRIEVAL
from tests.integrations.langchain.corpus.rewriting import REWRITING
from tests.integrations.langchain.corpus.routing import ROUTING
from tests.integrations.langchain.corpus.tooling import TOOLING

CORPUS: dict[str, Entry] = {
    **RETRIEVAL,
    **REWRITING,
    **ROUTING,
    **CHATS,
    **PROMPTING,
    **JUDGING,
    **DOCUMENT_CHAINS,
    **TOOLING,
    **GRAPH_FANS,
    **GRAPH_LOOPS,
}
