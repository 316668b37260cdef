"""A real server in a thread, so that a test can look at the engine behind it."""

import asyncio
import gc
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from parrot_backend.api.access.keys import Keys
from parrot_backend.api.app import create_app
from parrot_backend.api.engines import MakeMembers
from parrot_backend.endpoints.local import LocalEndpoint
from parrot_backend.engines.base import Engine
from parrot_backend.server import WAITING_CONNECTIONS, bind, config_of, url_of
from parrot_backend.serving.dispatch.fleet import Fleet, Member
from parrot_backend.serving.limits import Limits


class Watch:
    """Notes the longest time for which an event loop stood still: of its thread's own computing.

    What other threads and processes take of the processor does not count.
    """

    longest = 0.0

    async def run(self) -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0.001)
            now = time.thread_time()
            self.longest = max(self.longest, now - last)
            last = now


class _Server(uvicorn.Server):
    watch: Watch | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for sock in sockets or ():
            sock.listen(WAITING_CONNECTIONS)
        if self.watch is not None:
            self._watching = asyncio.create_task(self.watch.run())


@contextmanager
def serving(
    engine: Engine,
    *,
    api_key: str | None = None,
    keys: Keys | None = None,
    limits: Limits | None = None,
    grace: int = 5,
    watch: Watch | None = None,
) -> Iterator[str]:
    """Base URL of a server over `engine`, on a free port; what runs at its end has `grace` seconds."""
    keys = Keys.single(api_key) if api_key is not None else keys
    fleet = Fleet(Member("local", LocalEndpoint(engine)))
    with serving_fleet(fleet, keys=keys, limits=limits, grace=grace, watch=watch) as url:
        yield url


@contextmanager
def serving_fleet(
    fleet: Fleet,
    *,
    keys: Keys | None = None,
    limits: Limits | None = None,
    make_member: MakeMembers | None = None,
    grace: int = 5,
    watch: Watch | None = None,
) -> Iterator[str]:
    """As `serving`, over several engines."""
    app = create_app(fleet, keys=keys, limits=limits, make_member=make_member)
    listener = bind("127.0.0.1", 0)
    server = _Server(config_of(app, grace))
    server.watch = watch
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    if watch is not None:
        gc.collect()
        gc.freeze()  # as servers do: else what other tests have left is looked at, for long
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
        gc.unfreeze()
    assert not thread.is_alive(), "the server did not stop"


def eventually(condition, timeout: float = 5.0) -> bool:
    """Whether `condition()` becomes true within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())
