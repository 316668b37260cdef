"""A staged endpoint, and dispatchers that leave nothing behind."""

from collections.abc import AsyncIterator, Callable

import pytest

from parrot_backend.endpoints.base import Endpoint
from parrot_backend.serving.dispatch.dispatcher import Dispatcher
from parrot_backend.serving.dispatch.fleet import Fleet, Member
from parrot_backend.serving.dispatch.policy import Policy
from parrot_backend.serving.limits import Limits
from tests.serving.dispatch.doubles import nothing_left

MakeDispatcher = Callable[..., Dispatcher]


@pytest.fixture
async def dispatch() -> AsyncIterator[MakeDispatcher]:
    """Makes dispatchers; when the test is over, each is closed and has nothing left."""
    made: list[Dispatcher] = []

    def make(
        *endpoints: Endpoint | Member, policy: Policy | None = None, **limits: float
    ) -> Dispatcher:
        members = [
            each if isinstance(each, Member) else Member(f"e{number}", each)
            for number, each in enumerate(endpoints)
        ]
        make_policy = None if policy is None else lambda: policy
        made.append(Dispatcher(Fleet(*members), Limits(**limits), make_policy))
        return made[-1]

    yield make
    for dispatcher in made:
        await dispatcher.aclose()
        assert nothing_left(dispatcher)
