"""A real server in a thread, so that a test can look at the engine behind it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from parrot_backend.api.app import create_app
from parrot_backend.endpoints.local import LocalEndpoint
from parrot_backend.engines.base import Engine
from parrot_backend.server import bind, url_of
from parrot_backend.serving.limits import Limits


@contextmanager
def serving(
    engine: Engine,
    *,
    api_key: str | None = None,
    limits: Limits | None = None,
    grace: int = 5,
) -> Iterator[str]:
    """Base URL of a server over `engine`, on a free port; what runs at its end has `grace` seconds."""
    app = create_app(LocalEndpoint(engine), api_key=api_key, limits=limits)
    listener = bind("127.0.0.1", 0)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=grace)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        yield url_of(listener)
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        listener.close()
    assert not thread.is_alive(), "the server did not stop"


def eventually(condition, timeout: float = 5.0) -> bool:
    """Whether `condition()` becomes true within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())
