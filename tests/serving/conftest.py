"""A session over a scripted engine: what happens when is decided by the test."""

from collections.abc import AsyncIterator

import pytest

from parrot_backend.endpoints.local import LocalEndpoint
from parrot_backend.serving.core import ServingCore
from parrot_backend.serving.dispatch.fleet import Fleet, Member
from parrot_backend.serving.limits import Limits
from parrot_backend.serving.sessions.session import Session
from tests.doubles import ScriptedEngine


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
async def core(engine: ScriptedEngine) -> AsyncIterator[ServingCore]:
    core = ServingCore(Fleet(Member("local", LocalEndpoint(engine))), Limits())
    yield core
    await core.aclose()
    assert engine.running == 0
    assert engine.expected == []


@pytest.fixture
def session(core: ServingCore) -> Session:
    return core.tenancy().open()
