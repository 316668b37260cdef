"""Closing the sockets of an async client whose event loop is closed, and so can't do it."""

from contextlib import suppress
from typing import Any

import httpx


def cut_off(client: httpx.AsyncClient) -> None:
    """Close a client's sockets, without a word to anybody, and run nothing.

    No library has a way to this, so it goes through the insides of httpx, httpcore, anyio and asyncio.
    Where those are others, the garbage collector closes the sockets, with a warning.
    """
    for transport in (client._transport, *client._mounts.values()):
        pool: Any = getattr(transport, "_pool", None)
        for connection in getattr(pool, "connections", ()):
            with suppress(Exception):
                _cut(_stream_of(connection))


def _stream_of(connection: Any) -> Any:
    """What a connection writes to, below proxies and TLS."""
    while not hasattr(connection, "_network_stream"):
        connection = connection._connection
    stream = connection._network_stream._stream
    while hasattr(stream, "transport_stream"):
        stream = stream.transport_stream
    return stream


def _cut(stream: Any) -> None:
    if (transport := getattr(stream, "_transport", None)) is None:  # of a Unix socket
        stream._raw_socket.close()
        return
    with suppress(RuntimeError):  # the loop is closed, and will not call the rest
        transport.abort()
    transport._call_connection_lost(None)
