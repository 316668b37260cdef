"""Fixtures of the tests over HTTP; `url` is of the server that a module of tests has."""

from collections.abc import Iterator

import openai
import pytest


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client
