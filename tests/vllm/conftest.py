"""One Parrot with a vLLM of its own for all tests here, under vLLM's marker."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from parrot_backend.endpoints.upstream.address import Secret
from parrot_backend.endpoints.upstream.endpoint import UpstreamEndpoint
from parrot_backend.endpoints.vllm.finding import find_vllm
from tests.processes import Served
from tests.vllm.served import BATCH, key_of, url_of, vllm_served

HERE = Path(__file__).parent
LONGEST_SECONDS = 900  # vLLM is started in the first test, and again in one


# What of the suites for our own engine is otherwise on vLLM, and why.
_NO_FIELD = "vLLM tells what is wrong with a grammar, and not which field it came from"
DIFFERS = {
    "test_a_schema_that_is_none_names_its_tool": _NO_FIELD,
    "test_a_schema_that_nothing_satisfies_is_a_400": _NO_FIELD,
    "test_a_stop_string_ends_text_and_no_call": "vLLM ends an answer at a stop string wherever it "
    "stands, be it within a call's arguments",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.vllm)
            item.add_marker(pytest.mark.timeout(LONGEST_SECONDS))
            if reason := DIFFERS.get(item.name.partition("[")[0]):
                item.add_marker(pytest.mark.xfail(reason=reason, raises=AssertionError))


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    """`parrot serve --engine vllm:MODEL` with the default model."""
    if find_vllm(os.environ) is None:
        pytest.skip("vLLM is not here: make test-vllm installs it; PARROT_VLLM names another")
    with vllm_served("smollm2-135m-instruct") as served:
        yield served


@pytest.fixture(scope="session")
def base_url(served: Served) -> str:
    """In place of the server over our own engine, for suites that run on both."""
    return served.url


@pytest.fixture
async def direct(served: Served) -> AsyncIterator[UpstreamEndpoint]:
    """The same vLLM without our queue before it: it is given more than it runs at once."""
    endpoint = UpstreamEndpoint(url_of(served), key=Secret(key_of(served)), slots=8 * BATCH)
    await endpoint.start()
    yield endpoint
    await endpoint.aclose()
