"""Connections over real sockets: their bound, their deadlines, and many requests at once."""

import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO
from urllib.parse import urlsplit

import httpx
import pytest

from parrot_backend.api.access import connections
from parrot_backend.api.access.connections import Connections
from parrot_backend.serving.limits import Limits
from tests.doubles import ScriptedEngine
from tests.servers import Watch, eventually, serving

REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def url(watch: Watch) -> Iterator[str]:
    limits = Limits(connections=20, header_seconds=1.0)
    with serving(ScriptedEngine(), limits=limits, watch=watch) as base:
        yield base


def connected(url: str, sent: bytes = b"") -> socket.socket:
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=10)
    connection.sendall(sent)
    return connection


def ended(connection: socket.socket) -> bool:
    """Whether the server has ended it; what it has sent is dropped."""
    connection.settimeout(0.2)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


@pytest.mark.parametrize("sent", [b"", REQUEST])
def test_the_longest_idle_make_room(url: str, sent: bytes) -> None:
    """Those that were used, and those that have never said a word."""
    with ExitStack() as opened:
        many = [opened.enter_context(connected(url, sent)) for _ in range(300)]
        assert httpx.get(f"{url}/health").status_code == 200
        assert all(ended(connection) for connection in many[:200])
        assert httpx.get(f"{url}/health").status_code == 200


def test_where_none_is_idle_a_new_one_is_told_so() -> None:
    with serving(ScriptedEngine(), limits=Limits(connections=20)) as url, ExitStack() as opened:
        for _ in range(20):
            opened.enter_context(connected(url, REQUEST[:10]))
        time.sleep(0.5)
        refused = opened.enter_context(connected(url, REQUEST))
        told = b"".join(iter(lambda: refused.recv(65536), b"")).decode().lower()
        assert told.startswith("http/1.1 503 ")
        assert "connection: close" in told
        assert "too_many_connections" in told
        opened.close()
        assert eventually(lambda: httpx.get(f"{url}/health").status_code == 200)


@pytest.mark.parametrize("before", [b"", REQUEST])
def test_a_head_that_trickles_is_ended(url: str, before: bytes) -> None:
    with connected(url, before) as connection:
        begun = time.monotonic()
        for byte in REQUEST * 10:
            time.sleep(0.05)
            try:
                connection.sendall(bytes([byte]))
            except OSError:
                break
            if time.monotonic() - begun > 1.5:
                break
        assert ended(connection)


def test_what_says_nothing_is_ended(url: str) -> None:
    with connected(url) as connection:
        time.sleep(1.2)
        assert ended(connection)


def test_a_connection_that_was_used_is_kept(url: str) -> None:
    """Also one whose body was answered before it was read."""
    body = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
    with connected(url, body + b"x" * 100_000) as connection:
        time.sleep(1.5)
        assert not ended(connection)
        connection.sendall(REQUEST)
        connection.settimeout(10)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_body_that_nobody_reads_comes_in_time_too(url: str) -> None:
    body = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
    with connected(url, body) as connection:
        time.sleep(1.2)
        assert ended(connection)


def test_pipelined_requests_hold_nobody_up(url: str, watch: Watch) -> None:
    with connected(url, REQUEST) as connection:
        connection.recv(65536)
        watch.longest = 0.0
        connection.sendall(REQUEST * 1000)
        told = b""
        while told.count(b"HTTP/1.1 200") < 1000:
            told += connection.recv(65536)
    assert watch.longest < 0.5


def test_descriptors_are_taken_and_bound_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: taken.append(limits))
    descriptors = Connections(Limits())
    assert descriptors.most + descriptors.lingering == 1024 - connections.ACCEPTED_AT_ONCE * 8 - 64
    assert descriptors.most > 500
    assert taken == [(1024, 1024)]
    assert Connections(Limits(connections=7)).most == 7


@dataclass(frozen=True, slots=True)
class Small:
    """A server that may have 256 files open."""

    url: str
    process: "subprocess.Popen[str]"
    log: IO[str]

    def written(self) -> str:
        self.log.seek(0)
        return self.log.read()


@pytest.fixture
def small() -> Iterator[Small]:
    serve = [sys.executable, "-m", "tests.streams", "--tokens", "60", "--pace", "1"]
    command = ["bash", "-c", 'ulimit -n 256 && exec "$@"', "bash", *serve]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        yield Small(process.stdout.readline().strip(), process, log)
        process.kill()


def test_a_burst_beyond_the_descriptors_is_answered(small: Small) -> None:
    """Each of them, although nothing was served before and what it takes is not loaded yet."""
    url = small.url
    body = b'{"messages":[{"role":"user","content":"x"}],"stream":true}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    head += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    with ExitStack() as opened:
        many = [opened.enter_context(connected(url, head + body)) for _ in range(400)]
        assert httpx.get(f"{url}/health", timeout=10).status_code in (200, 503)
        time.sleep(2)
        for connection in many:
            connection.setblocking(False)
        begun = [connection.recv(65536) for connection in many]
    statuses = Counter(answer.partition(b"\r\n")[0] for answer in begun)
    written = small.written()
    assert set(statuses) == {b"HTTP/1.1 200 OK", b"HTTP/1.1 503 Service Unavailable"}, written
    assert statuses[b"HTTP/1.1 200 OK"] > 30
    refused = [answer for answer in begun if b" 503 " in answer]
    assert all(b"too_many_connections" in answer for answer in refused)
    assert all(b"connection: close" in answer for answer in refused)
    assert "Traceback" not in written
    assert eventually(lambda: httpx.get(f"{url}/health", timeout=10).status_code == 200)


def test_a_body_that_is_still_to_come_at_the_server_s_end_is_answered(small: Small) -> None:
    head = b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with connected(small.url, head + b"Content-Length: 100\r\n\r\n{") as connection:
        assert httpx.get(f"{small.url}/health").status_code == 200
        small.process.terminate()
        told = b"".join(iter(lambda: connection.recv(65536), b""))
    assert told.startswith(b"HTTP/1.1 503 ")
    assert b'"code":"unavailable"' in told
    assert small.process.wait(10) == 0
    assert "Traceback" not in small.written()


def test_what_is_no_http_is_answered_in_the_shape_of_errors(url: str) -> None:
    with connected(url, b"nonsense\r\n\r\n") as connection:
        told = b"".join(iter(lambda: connection.recv(65536), b""))
    assert told.startswith(b"HTTP/1.1 400 ")
    assert b'"type":"invalid_request_error"' in told
