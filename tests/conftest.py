"""Fixtures that every test folder shares."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.servers import serving

if TYPE_CHECKING:
    from parrot_backend.engines.torch_engine import TorchEngine


@pytest.fixture(scope="session")
def model_path() -> str:
    """Folder of the real default model, fetched and converted on first use."""
    if path := os.environ.get("PARROT_TEST_MODEL"):
        return path
    from parrot_backend.engines.store.catalog import resolve_model

    return str(resolve_model(None).path)


@pytest.fixture(scope="session")
def engine(model_path: str) -> "TorchEngine":
    """The real engine with the real model; the server of `base_url` owns it."""
    from parrot_backend.engines.store.generation_config import generation_config
    from parrot_backend.engines.torch_engine import TorchEngine

    return TorchEngine.load(
        model_path,
        "smollm2-135m-instruct",
        kv_memory=1 << 30,
        generation_config=generation_config(model_path),
    )


@pytest.fixture(scope="session")
def base_url(engine: "TorchEngine") -> Iterator[str]:
    """A real server over the real engine."""
    with serving(engine) as url:
        yield url
