"""One computes what several begin with, and nobody else is in its way; placement decides, see there."""

import pytest

from parrot_backend.serving.call import Call
from parrot_backend.serving.rank import Rank
from parrot_backend.serving.tenants import Tenant
from parrot_backend.wire.text_protocol import PromptRequest
from tests.serving.dispatch.conftest import MakeDispatcher
from tests.serving.dispatch.doubles import (
    StagedEndpoint,
    a_call,
    enter,
    nothing_left,
    settle,
)

LONG = "You summarize what you are given in one sentence, and add nothing of your own. " * 40


def part(name: str, system: str = LONG, tenant: str = "") -> Call:
    return a_call(name, system=system, tenant=Tenant(tenant))


async def test_who_begins_alike_waits_for_the_first_token_of_the_first(
    dispatch: MakeDispatcher,
) -> None:
    endpoint = StagedEndpoint(8, sharing="computed")
    dispatcher = dispatch(endpoint)
    enter(dispatcher, *[part(f"{n}") for n in range(3)], a_call("other"))
    await settle()
    assert endpoint.started == [LONG + "0", "other"]
    endpoint.answer(LONG + "0", "x", last=False)
    await settle()
    assert endpoint.started[2:] == [LONG + "1", LONG + "2"]
    enter(dispatcher, part("late"))  # it is computed by now
    await settle()
    assert endpoint.started[-1] == LONG + "late"


async def test_where_batches_share_nobody_waits(dispatch: MakeDispatcher) -> None:
    endpoint = StagedEndpoint(8)
    enter(dispatch(endpoint), part("a"), part("b"))
    await settle()
    assert len(endpoint.started) == 2


async def test_other_tenants_and_short_beginnings_do_not_wait(dispatch: MakeDispatcher) -> None:
    endpoint = StagedEndpoint(8, sharing="computed")
    enter(
        dispatch(endpoint), part("a"), part("b", tenant="t"), part("c", "Sum."), part("d", "Sum.")
    )
    await settle()
    assert len(endpoint.started) == 4


async def test_answers_of_one_token_compute_their_beginning_too(dispatch: MakeDispatcher) -> None:
    endpoint = StagedEndpoint(8, sharing="computed")
    enter(dispatch(endpoint), *[part(f"{n}") for n in range(4)])
    await settle()
    endpoint.answer(LONG + "0", "x")
    await settle()
    assert len(endpoint.started) == 4


@pytest.mark.parametrize("how", ["cancelled", "lost"])
async def test_where_the_first_ends_the_next_computes(dispatch: MakeDispatcher, how: str) -> None:
    endpoint = StagedEndpoint(8, sharing="computed")
    dispatcher = dispatch(endpoint)
    calls = [part(f"{n}") for n in range(3)]
    enter(dispatcher, *calls)
    await settle()
    if how == "lost":
        endpoint.die()
        await settle()
        endpoint.become("ready")
    else:
        calls[0].end("cancelled")
    await settle()
    assert [call.state for call in calls].count("running") == 1
    endpoint.answer(endpoint.started[-1], "x", last=False)
    await settle()
    assert "queued" not in {call.state for call in calls}


async def test_a_new_endpoint_has_computed_nothing(dispatch: MakeDispatcher) -> None:
    endpoint = StagedEndpoint(8, sharing="computed")
    dispatcher = dispatch(endpoint)
    enter(dispatcher, part("first"))
    await settle()
    endpoint.answer(LONG + "first", "x")
    await settle()
    endpoint.die()
    endpoint.become("ready")
    enter(dispatcher, part("a"), part("b"))
    await settle()
    assert endpoint.started[1:] == [LONG + "a"]


async def test_who_waits_for_a_prefix_may_end_and_be_ranked(dispatch: MakeDispatcher) -> None:
    endpoint = StagedEndpoint(8, sharing="computed")
    dispatcher = dispatch(endpoint)
    calls = [part(f"{n}") for n in range(3)]
    enter(dispatcher, *calls)
    calls[1].end("cancelled")
    calls[2].rank = Rank(critical=False)
    dispatcher.rerank(calls[2])
    await settle()
    for call in (calls[0], calls[2]):
        endpoint.answer(LONG + call.id, "x")
        await settle()
    assert [call.state for call in calls] == ["done", "cancelled", "done"]
    assert nothing_left(dispatcher)


async def test_raw_prompts_are_compared_by_their_beginning(dispatch: MakeDispatcher) -> None:
    endpoint = StagedEndpoint(8, sharing="computed")
    dispatcher = dispatch(endpoint)
    for prompt in ("a" * 3000 + "1", "a" * 3000 + "2", [7] * 800, [7] * 801, [7] * 5):
        call = a_call(f"{len(prompt)}")
        call.request = PromptRequest(prompt=prompt)
        enter(dispatcher, call)
    assert [call.state for call in dispatcher._held].count("running") == 3
