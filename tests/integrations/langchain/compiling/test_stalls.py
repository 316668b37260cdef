"""A backend that stalls or is dead costs a compiled run no more than it costs the native one."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from langchain_core.runnables import Runnable

from parrot_backend.wire.views import SessionView
from parrot_integrations.client.errors import ParrotError
from parrot_integrations.langchain import ChatParrot, compile
from tests.integrations.langchain.compiling.chains import ask


def two_calls(url: str, retries: int) -> Runnable[str, str]:
    llm = ChatParrot(base_url=url, temperature=0, max_retries=retries)
    return ask("Name {x}", llm) | ask("Draw {y}", llm)


class _Stalling(BaseHTTPRequestHandler):
    """Takes every request, and ends the connection without a word after some seconds."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path in self.server.answered:
            view = SessionView(id="s-1").model_dump_json().encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(view)))
            self.end_headers()
            self.wfile.write(view)
        else:
            self.server.over.wait(8)
            self.close_connection = True

    do_DELETE = do_POST  # noqa: N815 - the standard library's names

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def stalling(*answered: str) -> Iterator[str]:
    """A server that answers these paths, and stalls at any other."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Stalling)
    server.daemon_threads = True
    server.answered, server.over = answered, threading.Event()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


OPENS = ("/v1/sessions",)


@pytest.mark.parametrize("answered", [(), OPENS])
async def test_a_stalling_backend_does_not_hold_a_cancelled_run(answered: tuple[str, ...]) -> None:
    with stalling(*answered) as url:
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(compile(two_calls(url, 2)).ainvoke("it"), 1)
        assert time.monotonic() - begun < 1.6


@pytest.mark.parametrize("answered", [(), OPENS])
async def test_a_stalling_backend_does_not_hold_a_stream(answered: tuple[str, ...]) -> None:
    with stalling(*answered) as url:
        begun = time.monotonic()
        stream = compile(two_calls(url, 2)).astream("it")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 1)
        await stream.aclose()
        assert time.monotonic() - begun < 1.6


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_dead_backend_fails_as_early_as_natively(asynchronous: bool) -> None:
    """Two pauses between three attempts: 1.5 s at most, and not twice that."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    compiled = compile(two_calls(url, 2))
    begun = time.monotonic()
    with pytest.raises(Exception, match="Cannot reach a Parrot backend") as raised:
        asyncio.run(compiled.ainvoke("it")) if asynchronous else compiled.invoke("it")
    assert time.monotonic() - begun < 2.0
    assert isinstance(raised.value.__cause__, ParrotError)
