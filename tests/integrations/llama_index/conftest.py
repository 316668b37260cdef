"""What older releases of LlamaIndex warn of and look for elsewhere, which nobody here can change."""

import gc
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "The 'validate_default' attribute")
    # Before 0.14 it warns of its node parsers, and of classes above them, as they are defined.
    import llama_index.core

    import parrot_integrations.llama_index  # noqa: F401
    from tests.integrations.llama_index.releases import RELEASE

# With a progress bar around its tasks, LlamaIndex has this make asyncio's classes others for the rest
# of the process, where it is installed; what workflows are made of is then no future any more.
sys.modules["nest_asyncio"] = None  # type: ignore[assignment]

# Before 0.14 it does not look for stop words where it brings them, and would download them.
_CORE = Path(llama_index.core.__file__).parent
_STOP_WORDS = _CORE if RELEASE < (0, 13) else _CORE / "_static" / "nltk_cache"
os.environ.setdefault("NLTK_DATA", str(_STOP_WORDS))


@pytest.fixture(autouse=True)
def old_workflows_may_warn() -> None:
    """Workflows before 2.0 make a service manager and say that nobody should."""
    warnings.filterwarnings("ignore", "ServiceManager is deprecated")


_LEAVES = "ignore:unclosed <socket.socket.*family=1:ResourceWarning"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """LlamaIndex leaves event loops open, of which nobody knows whose test finds that out."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings(_LEAVES, "ignore:unclosed event loop"))


@pytest.fixture(autouse=True, scope="module")
def what_is_left_open_is_collected_here() -> Iterator[None]:
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
