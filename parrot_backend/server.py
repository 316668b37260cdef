"""The server process: its socket, its readiness, its end."""

import asyncio
import contextlib
import errno
import gc
import ipaddress
import logging
import os
import signal
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import cast

import uvicorn
from fastapi import FastAPI

from parrot_backend.api.access.connections import ACCEPTED_AT_ONCE, Connections, answer_unread
from parrot_backend.resident.places import is_same
from parrot_backend.wire.errors import ParrotError

logger = logging.getLogger(__name__)

LAST_WORDS_SECONDS = 2
WAITING_CONNECTIONS = 2048


class StartError(ParrotError):
    """The server can't start as it was asked to."""


def bind(host: str, port: int) -> socket.socket:
    """Take a TCP address; nobody can connect until `run` listens on it.

    The socket says that it is TCP's: only then does asyncio turn Nagle's algorithm off on what it
    accepts, and without that an answer waits for the client's delayed acknowledgement.

    Raises:
        StartError: there is no such host, or the address can't be had.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except OSError as error:
        raise StartError(f"there is no host '{host}': {error.strerror}") from None
    # 'localhost' may be both ::1 and 127.0.0.1; clients that try one address try the second.
    family, kind, protocol, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise _not_bound(error, f"port {port} on {host}") from None
    return sock


def bind_unix(path: str) -> socket.socket:
    """Take a Unix socket that only this user may open; one that a dead server left is replaced.

    Raises:
        StartError: the path is in use, or can't be had.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)
    try:
        _remove_stale(path)
        sock.bind(path)
    except OSError as error:
        sock.close()
        raise _not_bound(error, f"the socket {path}") from None
    finally:
        os.umask(umask)
    return sock


def _remove_stale(path: str) -> None:
    if not os.path.exists(path) or not stat.S_ISSOCK(os.stat(path).st_mode):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


def _unlink(path: Path, ours: os.stat_result) -> None:
    """Take our socket away, unless it has gone, or another's is in its place."""
    if is_same(path, ours):
        path.unlink(missing_ok=True)


def _not_bound(error: OSError, address: str) -> StartError:
    if error.errno == errno.EADDRINUSE:
        return StartError(f"{address} is in use: end what uses it or choose another")
    return StartError(f"can't use {address}: {error.strerror or error}")


def is_local(sock: socket.socket) -> bool:
    """Whether only this machine can reach the socket."""
    if sock.family == socket.AF_UNIX:
        return True
    return ipaddress.ip_address(sock.getsockname()[0]).is_loopback


def url_of(sock: socket.socket) -> str:
    """Where clients find the socket; `unix:PATH` for a Unix socket."""
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if sock.family == socket.AF_INET6 else f"http://{host}:{port}"


async def _nothing() -> None:
    """For what is ready already."""


async def _never(is_busy: Callable[[], bool]) -> None:
    """For what serves until it is told to end."""
    await asyncio.Event().wait()


class _Server(uvicorn.Server):
    """Says when it is ready, and takes a signal as the wish for an orderly end, with exit code 0.

    So does the end of `unwanted`. Requests then have `grace_seconds`, or until the next SIGINT. Then
    the core ends their calls, so that clients are told, and those whose bodies are still to come are
    answered; uvicorn would cut them off.
    """

    def __init__(
        self,
        app: FastAPI,
        config: uvicorn.Config,
        *,
        on_ready: Callable[[], None],
        unwanted: Callable[[Callable[[], bool]], Awaitable[None]],
        on_end: Callable[[], None],
        on_hangup: Callable[[], Awaitable[None]] | None,
        hung_up: asyncio.Event,
        grace_seconds: int,
    ) -> None:
        super().__init__(config)
        self._on_hangup = on_hangup
        self._hung_up = hung_up
        self._hearing: asyncio.Task[None] | None = None
        self._app = app
        self._on_ready = on_ready
        self._unwanted = unwanted
        self._on_end = on_end
        self._grace_seconds = grace_seconds
        self._at_once = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for sock in sockets or ():
            sock.listen(WAITING_CONNECTIONS)  # uvicorn has told it how many to accept at once
        self._on_ready()
        if self._on_hangup is not None:
            self._hearing = asyncio.create_task(self._hear(self._on_hangup), name="hang-ups")
        self._waiting = asyncio.create_task(self._until_unwanted(), name="until unwanted")

    async def _hear(self, on_hangup: Callable[[], Awaitable[None]]) -> None:
        """One after the other; what comes meanwhile is one more."""
        while True:
            await self._hung_up.wait()
            self._hung_up.clear()
            try:
                await on_hangup()
            except ParrotError as error:
                logger.error("nothing is changed: %s", error.message)
            except Exception:
                logger.exception("SIGHUP is not done")

    async def _until_unwanted(self) -> None:
        try:
            await self._unwanted(lambda: bool(self.server_state.tasks))
        except Exception:
            logger.exception("ending: can't tell whether anybody wants the server")
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit and sig == signal.SIGINT:
            asyncio.get_running_loop().call_soon_threadsafe(self._at_once.set)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._waiting.cancel()
        if self._hearing is not None:
            self._hearing.cancel()
        self._on_end()  # first: who looks for it from now on is not to find one that ends
        ending = asyncio.create_task(self._end_calls(), name="end calls")
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()

    async def _end_calls(self) -> None:
        if running := len(self.server_state.tasks):
            logger.info(
                "ending: requests still running: %d; they have %d s, Ctrl-C again ends them now",
                running,
                self._grace_seconds,
            )
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._at_once.wait(), self._grace_seconds)
        answer_unread(self.server_state)
        await self._app.state.core.aclose()


def config_of(app: FastAPI, grace_seconds: int) -> uvicorn.Config:
    """How uvicorn serves an app of `create_app`."""
    return uvicorn.Config(
        app,
        http=cast(type[asyncio.Protocol], Connections(app.state.limits)),
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        backlog=ACCEPTED_AT_ONCE,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=grace_seconds + LAST_WORDS_SECONDS,
    )


def _calm_garbage_collector() -> None:
    """Look at all objects seldom: with a million of them that stops the event loop for half a second.

    What is there at the start stays; calls and sessions are freed without the collector.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*gc.get_threshold()[:2], 1000)


def run(
    app: FastAPI,
    sock: socket.socket,
    *,
    start: Callable[[], Awaitable[None]] = _nothing,
    on_ready: Callable[[], None],
    unwanted: Callable[[Callable[[], bool]], Awaitable[None]] = _never,
    on_hangup: Callable[[], Awaitable[None]] | None = None,
    grace_seconds: int,
) -> None:
    """Serve until SIGTERM, SIGINT or the end of `unwanted`.

    Running requests then have `grace_seconds` to finish. What has not by then, or by the next SIGINT,
    ends with an `UnavailableError`.

    Args:
        app: what is served.
        sock: where; nobody can connect before `start` has ended.
        start: what has to be there first, and belongs to the server's event loop.
        on_ready: called when it can be reached.
        unwanted: given whether any request is open, ends when nobody wants the server any more.
        on_hangup: what SIGHUP means; what comes while it starts is done once it serves. Without, the
            signal ends it as ever.
        grace_seconds: see above.

    Raises:
        StartError: somebody else has begun to listen on the address.
        ParrotError: it could not start.
    """
    url = url_of(sock)
    config = config_of(app, grace_seconds)

    async def serve() -> None:
        hung_up = asyncio.Event()
        if on_hangup is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hung_up.set)
        await start()
        try:
            sock.listen()
        except OSError as error:
            raise _not_bound(error, url) from None
        _calm_garbage_collector()
        server = _Server(
            app,
            config,
            on_ready=on_ready,
            unwanted=unwanted,
            on_end=address.close,
            on_hangup=on_hangup,
            hung_up=hung_up,
            grace_seconds=grace_seconds,
        )
        await server.serve(sockets=[sock])

    with contextlib.ExitStack() as address:
        if url.startswith("unix:"):
            path = Path(url.removeprefix("unix:"))
            address.callback(_unlink, path, path.stat())
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(serve())
