"""Every kind of case."""

from collections.abc import Callable
from functools import partial

from tests.integrations.llama_index.compiling.drawn import synthesizers
from tests.integrations.llama_index.compiling.drawn.case import Case, World
from tests.integrations.llama_index.compiling.drawn.chats import CHATS
from tests.integrations.llama_index.compiling.drawn.engines import ENGINES
from tests.integrations.llama_index.compiling.drawn.indices import INDICES
from tests.integrations.llama_index.compiling.drawn.ingestion import INGESTION
from tests.integrations.llama_index.compiling.drawn.own import OWN
from tests.integrations.llama_index.compiling.drawn.pipelines import PIPELINES
from tests.integrations.llama_index.compiling.drawn.uncommon import UNCOMMON

KINDS: dict[str, Callable[[World], Case]] = {
    **{kind: partial(synthesizers.case, kind=kind) for kind in synthesizers.CLASSES},
    **ENGINES,
    **INDICES,
    **INGESTION,
    **CHATS,
    **OWN,
    **PIPELINES,
    **UNCOMMON,
}
