from collections.abc import Iterator

import pytest

from parrot_integrations.client import ParrotClient


@pytest.fixture
def client(scripted_url: str) -> Iterator[ParrotClient]:
    """A client of the scripted backend."""
    with ParrotClient(scripted_url) as client:
        yield client
