"""Who may ask: with keys their tenants, without any whoever names this machine."""

import socket
from collections.abc import Iterator
from hashlib import sha256

import httpx
import pytest

from parrot_backend.api.access.keys import Keys
from parrot_backend.serving.tenants import Tenant
from tests.doubles import ScriptedEngine
from tests.servers import serving

ANN, BOB = {"authorization": "Bearer a"}, {"authorization": "Bearer b"}
OPERATOR = {"authorization": "Bearer o"}


@pytest.fixture(scope="module")
def tenants() -> Iterator[httpx.Client]:
    named = {"a": Tenant("ann", False), "b": Tenant("bob", False), "o": Tenant("ops")}
    keys = Keys((sha256(key.encode()).digest(), tenant) for key, tenant in named.items())
    with serving(ScriptedEngine(), keys=keys) as url, httpx.Client(base_url=url) as client:
        yield client


@pytest.fixture(scope="module")
def local() -> Iterator[httpx.Client]:
    with serving(ScriptedEngine()) as url, httpx.Client(base_url=url) as client:
        yield client


def test_open_routes_are_named_and_all_others_closed(tenants: httpx.Client) -> None:
    schema = tenants.get("/openapi.json", headers=ANN).json()
    paths = {*schema["paths"], "/openapi.json", "/docs", "/redoc", "/nowhere", "//health", "/v1"}
    answered = {path for path in paths if tenants.get(path).status_code != 401}
    assert answered == {"/health", "/ready"}


@pytest.mark.parametrize("given", ["a", "Basic a", "Bearer", "Bearer x", "Bearer a a", ""])
def test_what_is_no_key_is_refused(tenants: httpx.Client, given: str) -> None:
    answer = tenants.get("/v1/models", headers={"authorization": given})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert tenants.get("/v1/models", headers=ANN).status_code == 200


def test_a_tenant_s_sessions_are_not_found_by_others(tenants: httpx.Client) -> None:
    path = f"/v1/sessions/{tenants.post('/v1/sessions', headers=ANN).json()['id']}"
    for method, below in (("GET", ""), ("GET", "/graph"), ("GET", "/events"), ("DELETE", "")):
        assert tenants.request(method, path + below, headers=BOB).status_code == 404
    assert tenants.get("/v1/sessions", headers=BOB).json()["data"] == []
    assert tenants.get(path, headers=ANN).status_code == 200


def test_stats_are_for_operators(tenants: httpx.Client) -> None:
    answer = tenants.get("/v1/stats", headers=ANN)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    assert tenants.get("/v1/stats", headers=OPERATOR).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LocalHost:80", 200),
        ("127.0.0.1:1", 200),
        ("127.9.9.9", 200),
        ("[::1]:8642", 200),
        ("localhost.", 200),
        ("localhost:", 200),
        ("[::ffff:127.0.0.1]", 200),
        ("evil.example@localhost", 421),
        ("localhost/evil.example", 421),
        ("localhost?evil", 421),
        ("localhost#evil", 421),
        ("localhost:abc", 421),
        ("localhost:80:80", 421),
        ("[::ffff:10.0.0.1]", 421),
        ("[localhost", 421),
        ("::1", 421),
        ("evil.example", 421),
        ("evil.example:8642", 421),
        ("127.0.0.1.evil.example", 421),
        ("10.0.0.1", 421),
        ("[::2]", 421),
        ("[", 421),
        ("", 421),
    ],
)
def test_without_keys_the_host_is_this_machine(local: httpx.Client, host: str, status: int) -> None:
    for path in ("/v1/models", "/health"):
        assert local.get(path, headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    ("method", "origin", "status"),
    [
        ("POST", "http://localhost:3000", 200),
        ("POST", "http://127.0.0.1:8642", 200),
        ("POST", "https://evil.example", 403),
        ("POST", "http://[::1]:8642", 200),
        ("POST", "https://evil.example@localhost", 403),
        ("POST", "localhost", 403),
        ("POST", "null", 403),
        ("GET", "https://evil.example", 200),
    ],
)
def test_without_keys_other_hosts_pages_change_nothing(
    local: httpx.Client, method: str, origin: str, status: int
) -> None:
    answer = local.request(method, "/v1/sessions", headers={"origin": origin})
    assert answer.status_code == status


def test_with_a_key_any_host_is_right(tenants: httpx.Client) -> None:
    headers = {**ANN, "host": "parrot.example", "origin": "https://pages.example"}
    assert tenants.post("/v1/sessions", headers=headers).status_code == 200


def test_a_body_has_one_length(local: httpx.Client) -> None:
    """The rest of one that has two is not read as the next request."""
    address = (local.base_url.host, local.base_url.port)
    for path in ("/v1/sessions", "/health"):
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(
                f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
                "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            )
            told = b"".join(iter(lambda: connection.recv(65536), b""))
        assert told.startswith(b"HTTP/1.1 400 ")
        assert b"connection: close" in told.lower()
        assert told.count(b"HTTP/1.1") == 1
