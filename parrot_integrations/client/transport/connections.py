"""The httpx clients behind one `ParrotClient`: made when first needed, closed when nobody can use them.

A sync client serves all threads of a process. An async client belongs to one event loop, and an
async generator keeps it: event loops close their generators when they shut down, and the garbage
collector hands a dropped one to its loop. So sockets are closed by the loop that opened them. Some
frameworks close loops over their generators: what is left of those is cut off when the client is next
asked in a new loop, closed or dropped.
"""

import asyncio
import os
import weakref
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from parrot_integrations.client.transport.cutting import cut_off

UNIX = "unix:"
_LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=1000, keepalive_expiry=60.0)
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}

_Keeper = AsyncGenerator[httpx.AsyncClient, None]
_ByLoop = dict[asyncio.AbstractEventLoop, tuple[str, _Keeper, httpx.AsyncClient]]


def address(root: str) -> str:
    """What the paths of requests are appended to: over a Unix socket, the host does not matter."""
    return "http://localhost" if root.startswith(UNIX) else root


def _arguments(root: str) -> dict[str, Any]:
    url = urlsplit(address(root))
    return {
        "limits": _LIMITS,
        # Loading the certificate store takes 40 ms, and plain HTTP has no use for it.
        "verify": url.scheme == "https",
        # A proxy cannot reach this machine's own loopback.
        "trust_env": url.hostname not in _LOOPBACK,
    }


def _unix_transport(root: str) -> httpx.HTTPTransport | None:
    socket = root.removeprefix(UNIX)
    return httpx.HTTPTransport(uds=socket, limits=_LIMITS) if socket != root else None


def _async_unix_transport(root: str) -> httpx.AsyncHTTPTransport | None:
    socket = root.removeprefix(UNIX)
    return httpx.AsyncHTTPTransport(uds=socket, limits=_LIMITS) if socket != root else None


class Connections:
    """Pools of connections to one backend; usable again after closing."""

    def __init__(self) -> None:
        # By process, so that a forked child neither uses nor closes its parent's sockets.
        self._by_process: dict[tuple[int, str], httpx.Client] = {}
        self._by_loop: _ByLoop = {}
        weakref.finalize(self, _forget_closed_loops, self._by_loop)

    def of_process(self, root: str) -> httpx.Client:
        """The sync client of this process.

        Args:
            root: URL of the backend, without path, or `unix:` and the path of its socket. Only a
                managed one's changes: when the folder that it was in is gone.
        """
        client = self._by_process.get((os.getpid(), root))
        if client is None:
            new = httpx.Client(transport=_unix_transport(root), **_arguments(root))
            client = self._by_process.setdefault((os.getpid(), root), new)
            weakref.finalize(self, client.close)
        return client

    @asynccontextmanager
    async def of_loop(self, root: str) -> AsyncIterator[httpx.AsyncClient]:
        """The async client of the running event loop, for one request.

        Who closes these connections meanwhile lets the request come to its end first: a pool that
        is closed while it connects would never close what it then has.
        """
        loop = asyncio.get_running_loop()
        where, keeper, client = self._by_loop.get(loop, (root, None, None))
        if keeper is None or client is None or client.is_closed or where != root:
            _forget_closed_loops(self._by_loop)
            transport = _async_unix_transport(root)
            keeper = _keep(httpx.AsyncClient(transport=transport, **_arguments(root)))
            client = await anext(keeper)
            self._by_loop[loop] = root, keeper, client
        yield client

    def close(self) -> None:
        """Closes the connections of this process; event loops close theirs when they next run."""
        for key in [key for key in list(self._by_process) if key[0] == os.getpid()]:
            if client := self._by_process.pop(key, None):
                client.close()
        _forget_closed_loops(self._by_loop)
        self._by_loop.clear()

    async def aclose(self) -> None:
        """Closes the connections of this process and of the running event loop."""
        _, keeper, _ = self._by_loop.pop(asyncio.get_running_loop(), (None, None, None))
        if keeper is not None:
            await keeper.aclose()
        self.close()


class CallersConnections:
    """httpx clients of the caller's, which are never closed here, and `own` for what is not given.

    Args:
        own: connections of ours.
        sync: takes what would go over a sync client of ours.
        of_loops: takes what would go over async ones; which loops it can be used in, its owner knows.
    """

    def __init__(
        self, own: Connections, sync: httpx.Client | None, of_loops: httpx.AsyncClient | None
    ) -> None:
        self._own, self._sync, self._of_loops = own, sync, of_loops

    def of_process(self, root: str) -> httpx.Client:
        """The caller's sync client, or ours."""
        return self._sync or self._own.of_process(root)

    @asynccontextmanager
    async def of_loop(self, root: str) -> AsyncIterator[httpx.AsyncClient]:
        """The caller's async client, or ours."""
        if self._of_loops is not None:
            yield self._of_loops
            return
        async with self._own.of_loop(root) as client:
            yield client

    def close(self) -> None:
        """Closes our own connections."""
        self._own.close()

    async def aclose(self) -> None:
        """As `close`."""
        await self._own.aclose()


def _forget_closed_loops(by_loop: _ByLoop) -> None:
    for loop in list(by_loop):
        if loop.is_closed() and (kept := by_loop.pop(loop, None)) is not None:
            cut_off(kept[2])


async def _keep(client: httpx.AsyncClient) -> _Keeper:
    loop = asyncio.get_running_loop()
    try:
        yield client
    finally:
        if loop.is_closed():
            cut_off(client)
        else:
            await client.aclose()
