"""What LlamaIndex has to find at first, and what it leaves behind."""

import gc
from collections.abc import Iterator
from contextlib import suppress

import pytest
from llama_index.core.node_parser import SentenceSplitter


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """What is left is collected here, else it would be found in tests where it is an error."""
    with suppress(LookupError):  # where NLTK's data is not to be had, it fails the first time only
        SentenceSplitter().split_text("One. Two.")
    yield
    gc.collect()
