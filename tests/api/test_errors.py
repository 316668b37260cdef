"""Failures that nobody expected: answered, told once, and the connection goes on."""

import json
import logging

import httpx
import pytest

from parrot_backend.api.errors import error_response
from parrot_backend.endpoints.local import LocalEndpoint
from parrot_backend.engines.base import EngineStats
from parrot_backend.serving.call import Call
from parrot_backend.serving.dispatch.fleet import Fleet, Member
from parrot_backend.wire.errors import (
    CancelledCallError,
    EndpointLostError,
    NotFoundError,
    OverloadedError,
    ParrotError,
    QuotaError,
)
from tests.doubles import ScriptedEngine
from tests.servers import serving, serving_fleet


class BrokenStats(LocalEndpoint):
    def stats(self) -> EngineStats:
        raise RuntimeError("a fault of ours")


def test_a_failure_is_answered_and_the_connection_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fleet = Fleet(Member("broken", BrokenStats(ScriptedEngine())))
    with serving_fleet(fleet) as url, httpx.Client(base_url=url) as client:
        ports = set()
        for path in ("/v1/stats", "/health", "/v1/stats", "/health"):
            answer = client.get(path)
            ports.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
            assert answer.status_code == (500 if "stats" in path else 200)
            if answer.status_code == 500:
                assert answer.json()["error"]["code"] == "internal_error"
    assert len(ports) == 1, "one connection"
    told = [record for record in caplog.records if record.exc_info]
    assert [record.getMessage() for record in told] == ["GET /v1/stats failed"] * 2


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_a_stream_that_breaks_ends_with_an_error(
    path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, read = Call.read, []

    async def breaking(call: Call):
        async for delta in real(call):
            if read:
                raise RuntimeError("a fault of ours")
            read.append(delta)
            yield delta

    monkeypatch.setattr(Call, "read", breaking)
    body = {"stream": True, "messages": [{"role": "user", "content": "abc"}]}
    if path == "completions":
        body = {"stream": True, "prompt": "abc"}
    with serving(ScriptedEngine()) as url:
        lines = httpx.post(f"{url}/v1/{path}", json=body).text.split("\n\n")
    *_, error, done, end = lines
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "internal_error"
    assert (done, end) == ("data: [DONE]", "")
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 1


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (QuotaError("too many tokens", retry_after=6), "6"),
        (QuotaError("too many calls"), "1"),
        (OverloadedError("full"), "1"),
        (EndpointLostError("died"), "1"),
        (CancelledCallError("closed"), None),
        (NotFoundError("none"), None),
    ],
)
def test_it_is_told_when_to_try_again_where_that_helps(
    error: ParrotError, seconds: str | None
) -> None:
    assert error_response(error).headers.get("retry-after") == seconds
