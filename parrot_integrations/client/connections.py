"""The httpx clients behind one `ParrotClient`: made when first needed, closed when nobody can use them.

A sync client serves all threads of a process. An async client belongs to one event loop, and an
async generator keeps it: event loops close their generators when they shut down, and the garbage
collector hands a dropped one to its loop. So sockets are closed by the loop that opened them.
"""

import asyncio
import os
import weakref
from collections.abc import AsyncGenerator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

UNIX = "unix:"
_LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=1000, keepalive_expiry=60.0)
_CONNECT_TIMEOUT = 10.0
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}

_Keeper = AsyncGenerator[httpx.AsyncClient, None]


def address(root: str) -> str:
    """What the paths of requests are appended to: over a Unix socket, the host does not matter."""
    return "http://localhost" if root.startswith(UNIX) else root


class Connections:
    """Pools of connections; usable again after closing.

    Args:
        root: URL of the backend, without path, or `unix:` and the path of its socket.
        timeout: longest wait for the next byte, in seconds.
        headers: sent with every request.
    """

    def __init__(self, root: str, *, timeout: float, headers: Mapping[str, str]) -> None:
        url = urlsplit(address(root))
        self._socket = root.removeprefix(UNIX) if root.startswith(UNIX) else None
        self._arguments: dict[str, Any] = {
            "headers": dict(headers),
            "timeout": httpx.Timeout(timeout, connect=min(timeout, _CONNECT_TIMEOUT), pool=None),
            "limits": _LIMITS,
            # Loading the certificate store takes 40 ms, and plain HTTP has no use for it.
            "verify": url.scheme == "https",
            # A proxy cannot reach this machine's own loopback.
            "trust_env": url.hostname not in _LOOPBACK,
        }
        # By process, so that a forked child neither uses nor closes its parent's sockets.
        self._by_process: dict[int, httpx.Client] = {}
        self._by_loop: dict[asyncio.AbstractEventLoop, tuple[_Keeper, httpx.AsyncClient]] = {}

    def of_process(self) -> httpx.Client:
        """The sync client of this process."""
        client = self._by_process.get(os.getpid())
        if client is None:
            client = self._by_process.setdefault(os.getpid(), self._new_client())
            weakref.finalize(self, client.close)
        return client

    async def of_loop(self) -> httpx.AsyncClient:
        """The async client of the running event loop."""
        loop = asyncio.get_running_loop()
        _, client = self._by_loop.get(loop, (None, None))
        if client is None or client.is_closed:
            self._forget_closed_loops()
            keeper = _keep(self._new_async_client())
            client = await anext(keeper)
            self._by_loop[loop] = keeper, client
        return client

    def close(self) -> None:
        """Closes the connections of this process; event loops close theirs when they next run."""
        if client := self._by_process.pop(os.getpid(), None):
            client.close()
        self._by_loop.clear()

    async def aclose(self) -> None:
        """Closes the connections of this process and of the running event loop."""
        keeper, _ = self._by_loop.pop(asyncio.get_running_loop(), (None, None))
        if keeper is not None:
            await keeper.aclose()
        self.close()

    def _new_client(self) -> httpx.Client:
        transport = self._socket and httpx.HTTPTransport(uds=self._socket, limits=_LIMITS)
        return httpx.Client(transport=transport or None, **self._arguments)

    def _new_async_client(self) -> httpx.AsyncClient:
        transport = self._socket and httpx.AsyncHTTPTransport(uds=self._socket, limits=_LIMITS)
        return httpx.AsyncClient(transport=transport or None, **self._arguments)

    def _forget_closed_loops(self) -> None:
        for loop in list(self._by_loop):
            if loop.is_closed():
                self._by_loop.pop(loop, None)


async def _keep(client: httpx.AsyncClient) -> _Keeper:
    try:
        yield client
    finally:
        await client.aclose()
