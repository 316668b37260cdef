"""Fixtures that every test folder shares."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import residents
from tests.servers import serving

if TYPE_CHECKING:
    from parrot_backend.engines.torch_engine import TorchEngine


@pytest.fixture(scope="session", autouse=True)
def no_backend_is_left() -> Iterator[None]:
    """Managed backends of the tests have a folder of their own, and end with them."""
    folder = residents.runtime_folder()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_RUNTIME_DIR", str(folder))
        environment.setenv("PARROT_LINGER", "5")
        # Engines of the tests are found by processes that import nothing from the current folder.
        environment.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
        yield
        residents.stop_those_in(folder)
    shutil.rmtree(folder)


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
