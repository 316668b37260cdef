"""A proxy that cuts answers in the middle, for what the network does to those who read them."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

_GENERATION = (b"POST /v1/chat/completions", b"POST /v1/completions")


class Cuts:
    """How many answers are still to be cut, and how many were; each behind so many bytes."""

    def __init__(self, count: int, after: int) -> None:
        self.left, self.done, self.after = count, 0, after

    def cut(self, told: int) -> bool:
        """Whether an answer of which so much was told is cut now."""
        if not self.left or told < self.after:
            return False
        self.left, self.done = self.left - 1, self.done + 1
        return True


class _Connection:
    """One client's, to a connection of its own to the server."""

    def __init__(self, cuts: Cuts) -> None:
        self._cuts, self._told = cuts, 0
        self._generates = False

    async def asked(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            if data.startswith((b"POST ", b"GET ")):
                self._generates, self._told = data.startswith(_GENERATION), 0
            target.write(data)
            await target.drain()

    async def answered(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
            self._told += len(data)
            if self._generates and self._cuts.cut(self._told):
                return


class _Proxy:
    """Passes on what comes, until it is closed."""

    def __init__(self, url: str, cuts: Cuts) -> None:
        self._address, self._cuts = urlsplit(url), cuts
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        """Its address."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Take no more, and end what is there."""
        assert self._server is not None
        self._server.close()
        while self._writers:
            for writer in self._writers:
                writer.close()
            await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with suppress(OSError):  # the server was killed, or the client has gone
            await self._between(reader, writer)
        writer.close()
        self._writers.discard(writer)

    async def _between(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection(self._address.hostname, self._address.port)
        connection = _Connection(self._cuts)
        both = [
            asyncio.create_task(connection.asked(reader, ours)),
            asyncio.create_task(connection.answered(theirs, writer)),
        ]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)
        ours.close()


@contextmanager
def cutting(url: str, cuts: Cuts) -> Iterator[str]:
    """The address of a proxy in front of a server; it closes both sides of what it cuts."""
    loop, proxy = asyncio.new_event_loop(), _Proxy(url, cuts)
    address = loop.run_until_complete(proxy.start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield address
    finally:
        asyncio.run_coroutine_threadsafe(proxy.close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
