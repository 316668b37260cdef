"""A staged endpoint, and dispatchers that leave nothing behind."""

from collections.abc import AsyncIterator, Callable

import pytest

from parrot_backend.endpoints.base import Endpoint
from parrot_backend.serving.dispatch.dispatcher import Dispatcher
from parrot_backend.serving.dispatch.policy import Policy
from parrot_backend.serving.limits import Limits
from tests.serving.dispatch.doubles import nothing_left

MakeDispatcher = Callable[..., Dispatcher]


@pytest.fixture
async def dispatch() -> AsyncIterator[MakeDispatcher]:
    """Makes dispatchers; when the test is over, each is closed and has nothing left."""
    made: list[Dispatcher] = []

    def make(endpoint: Endpoint, policy: Policy | None = None, **limits: float) -> Dispatcher:
        made.append(Dispatcher(endpoint, Limits(**limits), policy))
        return made[-1]

    yield make
    for dispatcher in made:
        await dispatcher.aclose()
        assert nothing_left(dispatcher)
