"""Is it alive, is it ready?"""

import httpx
import pytest

from parrot_backend.endpoints.local import LocalEndpoint
from tests.doubles import ScriptedEngine
from tests.servers import serving


@pytest.mark.parametrize(
    ("state", "status"),
    [("ready", 200), ("starting", 503), ("draining", 503), ("dead", 503), ("failed", 503)],
)
def test_readiness_is_the_endpoint_s(
    state: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalEndpoint, "state", state)
    with serving(ScriptedEngine()) as url:
        answer = httpx.get(f"{url}/ready")
        assert httpx.get(f"{url}/health").json()["status"] == "ok"
    told = {"status": state, "model": "scripted", "engines": {"local": state}}
    assert (answer.status_code, answer.json()) == (status, told)
