"""What is told of sessions, and what a request is known by."""

import pytest
from pydantic import ValidationError

from parrot_backend.wire.protocol import ChatRequest, SessionRequest, SessionsAlive


def test_a_request_is_known_by_a_short_digest() -> None:
    asked = [
        ChatRequest(messages=[{"role": "user", "content": content}], stream=stream)
        for content, stream in (
            ("x" * 2**20, True),
            ("x" * 2**20, False),
            ("x" * 2**20 + "y", True),
        )
    ]
    keys = [request.claim_key() for request in asked]
    assert [len(key) for key in keys] == [32, 32, 32]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("grace", [0.5, 601, float("nan"), float("inf")])
def test_the_grace_of_a_client_is_bounded(grace: float) -> None:
    with pytest.raises(ValidationError):
        SessionRequest(grace=grace)
    assert SessionRequest().grace is None
    assert SessionRequest(grace=1).grace == 1


def test_a_heartbeat_names_sessions() -> None:
    assert SessionsAlive(sessions=["s-1"]).sessions == ["s-1"]
    for sessions in (["s 1"], ["s"] * 1001):
        with pytest.raises(ValidationError):
            SessionsAlive(sessions=sessions)
