"""What is refused, with which status, and when it may come again."""

import pytest

from parrot_backend.serving.dispatch.quotas import Quotas
from parrot_backend.serving.tenants import EVERYBODY, Tenant
from parrot_backend.wire.errors import OverloadedError, QuotaError, UnavailableError
from tests.serving.dispatch.conftest import MakeDispatcher
from tests.serving.dispatch.doubles import StagedEndpoint, a_call, enter, said, settle


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_full_server_says_try_again_later() -> None:
    quotas = Quotas(3)
    with pytest.raises(OverloadedError, match="try again") as refused:
        quotas.admit(EVERYBODY, 4)
    assert (refused.value.status, refused.value.retry_after) == (503, 1)
    quotas.admit(Tenant("a"), 1)
    with pytest.raises(OverloadedError):
        quotas.admit(EVERYBODY, 3)
    quotas.release(Tenant("a"), 0)
    quotas.admit(EVERYBODY, 3)
    with pytest.raises(OverloadedError):
        quotas.admit(EVERYBODY, 1)


def test_a_tenants_quota_is_its_own() -> None:
    quotas, few = Quotas(100), Tenant("few", calls=2)
    quotas.admit(Tenant("other"), 1)
    quotas.admit(few, 1)
    quotas.admit(few, 1)
    with pytest.raises(QuotaError) as refused:
        quotas.admit(few, 2)
    assert (refused.value.status, refused.value.code) == (429, "quota_exceeded")
    assert refused.value.retry_after == 1
    quotas.admit(Tenant("other"), 50)


def test_tokens_are_taken_when_they_were_used_and_come_again_by_the_minute() -> None:
    clock = Clock()
    quotas, tenant = Quotas(100, clock), Tenant("t", tokens_per_minute=600)
    quotas.admit(tenant, 1)
    quotas.admit(tenant, 1)
    quotas.release(tenant, 650)
    with pytest.raises(QuotaError) as refused:
        quotas.admit(tenant, 1)
    assert (refused.value.code, refused.value.retry_after) == ("rate_limit_exceeded", 6)
    assert "in 6 seconds" in refused.value.message
    clock.now = 5.0
    with pytest.raises(QuotaError, match="in 1 seconds"):
        quotas.admit(tenant, 1)
    clock.now = 6.0
    quotas.admit(tenant, 1)
    clock.now = 6000.0  # no more than a minute's worth is saved up
    quotas.release(tenant, 601)
    with pytest.raises(QuotaError):
        quotas.admit(tenant, 1)


async def test_the_dispatcher_counts_from_the_first_to_the_end(dispatch: MakeDispatcher) -> None:
    tenant = Tenant("t", calls=2, tokens_per_minute=60)
    endpoint = StagedEndpoint(1)
    dispatcher = dispatch(endpoint)
    dispatcher.admit(tenant, 1)
    call, waiting = a_call("a", tenant=tenant), a_call("b", tenant=tenant)
    dispatcher.track(waiting)
    enter(dispatcher, call)
    with pytest.raises(QuotaError, match="2 calls"):
        dispatcher.admit(tenant, 1)
    waiting.end("failed")
    await settle()
    endpoint.run_of("a").steps.put_nowait(said("x" * 60, prompt_tokens=30))
    await settle()
    with pytest.raises(QuotaError, match="31 seconds"):
        dispatcher.admit(tenant, 1)


async def test_a_server_that_closes_admits_nothing(dispatch: MakeDispatcher) -> None:
    dispatcher = dispatch(StagedEndpoint(1))
    await dispatcher.aclose()
    with pytest.raises(UnavailableError):
        dispatcher.admit(EVERYBODY, 1)
