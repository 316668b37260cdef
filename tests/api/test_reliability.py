"""What broke or held up the server once: refused or done, with everybody else served meanwhile."""

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.doubles import ScriptedEngine
from tests.servers import Watch, serving

JSON = {"content-type": "application/json"}
MOST_SECONDS = 0.5
"""Ten times what the loop may stand still."""


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


@pytest.fixture(scope="module")
def http(watch: Watch) -> Iterator[httpx.Client]:
    with (
        serving(ScriptedEngine(lambda _: "ok"), watch=watch) as url,
        httpx.Client(base_url=url, timeout=100) as client,
    ):
        yield client


def objects(count: int) -> str:
    return '{"messages":[' + ",".join(['{"a":1,"b":2}'] * count) + "]}"


def unknown_keys(count: int) -> str:
    return json.dumps({f"key{number}": 1 for number in range(count)})


def duplicate_keys(count: int) -> str:
    return "{" + ",".join(['"model":""'] * count) + "}"


def segments(count: int) -> str:
    content = [{"type": "text", "text": "x"}] * count
    message = {"role": "user", "content": content}
    return json.dumps({"program": {"calls": [{"id": "a", "messages": [message]}]}})


@pytest.mark.parametrize(
    ("path", "content", "status", "code"),
    [
        ("/v1/chat/completions", objects(2_000_000), 413, "too_many_values"),
        ("/v1/chat/completions", unknown_keys(200_000), 400, "too_many_keys"),
        ("/v1/chat/completions", duplicate_keys(200_000), 400, "too_many_keys"),
        ("/v1/chat/completions", unknown_keys(10_000), 400, None),
        ("/v1/chat/completions", "[" * 30_000_000, 400, "nested_too_deep"),
        ("/v1/chat/completions", '{"seed":' + "9" * 30_000_000 + "}", 400, None),
        ("/v1/sessions", segments(30_000), 400, None),
        ("/v1/sessions", json.dumps({"program": {"calls": [{}] * 30_000}}), 400, None),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else str(value),
)
def test_what_is_too_much_is_refused_and_nobody_waits(
    http: httpx.Client, watch: Watch, path: str, content: str, status: int, code: str | None
) -> None:
    data = content.encode()
    watch.longest = 0.0
    answer = http.post(path, content=data, headers=JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert watch.longest < MOST_SECONDS
    assert http.get("/health").status_code == 200


def test_what_is_refused_is_not_kept(http: httpx.Client) -> None:
    bodies: list[Any] = [objects(10_000).encode(), unknown_keys(10_001).encode()]
    http.post("/v1/chat/completions", content=bodies[0], headers=JSON)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for body in bodies:
            assert http.post("/v1/chat/completions", content=body, headers=JSON).is_client_error
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 5_000_000
