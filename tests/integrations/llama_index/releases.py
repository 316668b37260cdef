"""Which release of LlamaIndex runs here."""

import llama_index.core
import pytest

RELEASE = tuple(int(number) for number in llama_index.core.__version__.split(".")[:2])

in_constraints = pytest.mark.skipif(
    RELEASE < (0, 14), reason="how much is planned is told of the release in constraints.txt"
)
