"""The server's socket: what it accepts sends at once."""

import asyncio
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from parrot_backend.api.app import create_app
from parrot_backend.endpoints.local import LocalEndpoint
from parrot_backend.server import StartError, bind, bind_unix, run, url_of
from parrot_backend.serving.dispatch.fleet import Fleet, Member
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
        create_app(Fleet(Member("local", LocalEndpoint(ScriptedEngine())))),
        listener,
        on_ready=threading.Thread(target=visit).start,
        grace_seconds=1,
    )
    assert found == [True]


def test_sighup_while_it_starts_is_done_once_it_serves() -> None:
    """Who has written a new file need not know how far a start is."""
    happened: list[str] = []

    async def start() -> None:
        signal.raise_signal(signal.SIGHUP)

    async def reload() -> None:
        happened.append("reload")
        signal.raise_signal(signal.SIGTERM)

    run(
        create_app(Fleet(Member("local", LocalEndpoint(ScriptedEngine())))),
        bind("127.0.0.1", 0),
        start=start,
        on_ready=lambda: happened.append("ready"),
        on_hangup=reload,
        grace_seconds=1,
    )
    assert happened == ["ready", "reload"]


def test_neither_does_what_the_tests_servers_accept(accepted: list[socket.socket]) -> None:
    with serving(ScriptedEngine()) as url:
        assert nodelay_after_a_request(url, accepted) == [True]


# The end of a Unix socket


@pytest.fixture
def folder() -> Iterator[Path]:
    """One with a path that is short enough for sockets."""
    made = Path(tempfile.mkdtemp(dir="/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


class NotedEndpoint(LocalEndpoint):
    """It notes that it was ended."""

    closed = False

    async def aclose(self) -> None:
        self.closed = True
        await super().aclose()


def serve_until(changed: Callable[[], None], folder: Path) -> NotedEndpoint:
    """Serve at a socket in the folder, change something, and end."""

    async def unwanted(is_busy: Callable[[], bool]) -> None:
        await asyncio.sleep(0.05)
        changed()

    endpoint = NotedEndpoint(ScriptedEngine())
    with bind_unix(str(folder / "socket")) as sock:
        app = create_app(Fleet(Member("local", endpoint)))
        run(app, sock, on_ready=lambda: None, unwanted=unwanted, grace_seconds=1)
    return endpoint


def test_a_server_whose_folder_is_gone_ends_in_its_own_way(folder: Path) -> None:
    assert serve_until(lambda: shutil.rmtree(folder), folder).closed


def test_a_server_leaves_the_socket_that_another_has_bound_in_its_place(folder: Path) -> None:
    path = folder / "socket"
    with socket.socket(socket.AF_UNIX) as other:

        def replace() -> None:
            path.unlink()
            other.bind(str(path))

        serve_until(replace, folder)
        assert path.exists()
    path.unlink()
    serve_until(lambda: None, folder)
    assert not path.exists()


def test_a_server_that_cannot_tell_whether_it_is_wanted_ends_and_says_why(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("by nothing")

    assert serve_until(fail, folder).closed
    assert "can't tell whether anybody wants the server" in caplog.text
    assert "by nothing" in caplog.text
