"""A real server over an engine whose answers are known: the prompt, reversed."""

from collections.abc import Iterator

import pytest

from tests.doubles import ScriptedEngine
from tests.servers import serving


@pytest.fixture(autouse=True)
def no_parrot_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PARROT_BASE_URL", "PARROT_API_KEY", "PARROT_MODEL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def shared_engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture(scope="session")
def scripted_url(shared_engine: ScriptedEngine) -> Iterator[str]:
    with serving(shared_engine) as url:
        yield url


@pytest.fixture
def scripted_engine(shared_engine: ScriptedEngine) -> Iterator[ScriptedEngine]:
    """The engine behind `scripted_url`; what a test holds is held for that test only."""
    yield shared_engine
    shared_engine.held.clear()
