"""The two simple orders, which ours is compared with."""

import pytest

from parrot_backend.serving.dispatch.policy import FirstCome, LongestPrefixFirst, Policy
from parrot_backend.serving.rank import Rank
from parrot_backend.wire.text_protocol import PromptRequest
from tests.serving.dispatch.conftest import MakeDispatcher
from tests.serving.dispatch.doubles import StagedEndpoint, a_call, enter, settle


@pytest.fixture(params=[FirstCome, LongestPrefixFirst])
def policy(request: pytest.FixtureRequest) -> Policy:
    made: Policy = request.param()
    return made


def order(policy: Policy) -> list[str]:
    found = []
    while (turn := policy.next(1)) is not None:
        found.append(turn.call.id)
    return found


def test_without_shared_beginnings_who_came_first_goes_first(policy: Policy) -> None:
    calls = [a_call(f"{n}", rank=Rank(critical=n % 2 == 0, application=9 - n)) for n in range(6)]
    for call in calls:
        policy.enter(call)
    policy.remove(calls[2])
    policy.remove(calls[2])
    policy.rerank(calls[3])
    assert len(policy) == 5
    assert policy.next(0) is None
    assert order(policy) == ["0", "1", "3", "4", "5"]
    assert len(policy) == 0


async def test_no_call_is_in_anothers_way_or_goes_before_it_in_the_engine(
    policy: Policy, dispatch: MakeDispatcher
) -> None:
    """For a comparison that is one: the engine's own order is by priority."""
    endpoint = StagedEndpoint(1)
    enter(
        dispatch(endpoint, policy=policy), a_call("bulk", rank=Rank(critical=False)), a_call("chat")
    )
    await settle()
    assert endpoint.started == ["bulk"]
    assert endpoint.jobs[0].priority == 0


def test_who_begins_with_what_ran_goes_first() -> None:
    policy = LongestPrefixFirst()
    long, short = "a" * 1024, "a" * 512
    prompts = {"first": long, "other": "x" * 600, "short": short + "y" * 600, "same": long + "z"}
    for name, prompt in prompts.items():
        call = a_call(name)
        call.request = PromptRequest(prompt=prompt)
        policy.enter(call)
    assert order(policy) == ["first", "same", "short", "other"]
    assert policy._with_block == {}
    late = a_call("late")
    late.request = PromptRequest(prompt=long)
    policy.enter(a_call("b" * 300))
    policy.enter(late)
    assert order(policy)[0] == "late"
