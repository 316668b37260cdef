"""The server's socket: what it accepts sends at once."""

import signal
import socket
import threading
from collections.abc import Callable

import httpx
import pytest

from parrot_backend.api.app import create_app
from parrot_backend.endpoints.local import LocalEndpoint
from parrot_backend.server import StartError, bind, run, url_of
from tests.doubles import ScriptedEngine
from tests.servers import serving


@pytest.fixture
def accepted(monkeypatch: pytest.MonkeyPatch) -> list[socket.socket]:
    """The sockets that servers of this process have accepted."""
    sockets: list[socket.socket] = []
    accept: Callable[[socket.socket], tuple[socket.socket, object]] = socket.socket.accept

    def noted(listener: socket.socket) -> tuple[socket.socket, object]:
        connection, address = accept(listener)
        sockets.append(connection)
        return connection, address

    monkeypatch.setattr(socket.socket, "accept", noted)
    return sockets


def nodelay_after_a_request(url: str, accepted: list[socket.socket]) -> list[bool]:
    """Of each socket, while its connection is kept alive."""
    with httpx.Client(base_url=url, timeout=10) as client:
        client.get("/v1/models").raise_for_status()
        return [bool(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) for one in accepted]


def has_ipv6() -> bool:
    try:
        bind("::1", 0).close()
    except StartError:
        return False
    return True


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")),
    ],
)
def test_what_the_server_accepts_does_not_wait_to_send(
    host: str, accepted: list[socket.socket]
) -> None:
    listener = bind(host, 0)
    found: list[bool] = []

    def visit() -> None:
        try:
            found.extend(nodelay_after_a_request(url_of(listener), accepted))
        finally:
            signal.raise_signal(signal.SIGTERM)

    run(
        create_app(LocalEndpoint(ScriptedEngine())),
        listener,
        on_ready=threading.Thread(target=visit).start,
        grace_seconds=1,
    )
    assert found == [True]


def test_neither_does_what_the_tests_servers_accept(accepted: list[socket.socket]) -> None:
    with serving(ScriptedEngine()) as url:
        assert nodelay_after_a_request(url, accepted) == [True]
