"""An engine that is asked without sockets, in time that passes only where everybody waits for it.

What takes time takes exactly that, however busy the machine is, and no test waits.
"""

import asyncio
import selectors
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import httpx
from starlette.types import ASGIApp, Message

Result = TypeVar("Result")


class _Jumping(selectors.DefaultSelector):
    """Waits for nothing: it puts the clock forward instead."""

    moment = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everybody waits, and nothing is to come"
            self.moment += timeout
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.moment


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """What comes of it, in virtual time."""
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        return runner.run(work)


class InProcess(httpx.AsyncBaseTransport):
    """Asks an app of this process, and reads its answer as it comes; closing it ends the app's work."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        sent: asyncio.Queue[Message] = asyncio.Queue()
        body = await request.aread()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": request.method,
            "path": request.url.path,
            "raw_path": request.url.raw_path,
            "query_string": request.url.query,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
        }

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        working = asyncio.create_task(self._app(scope, receive, sent.put))
        answer = _Answer(sent, working, request.extensions["timeout"]["read"])
        start = await answer.next()
        return httpx.Response(start["status"], headers=start["headers"], stream=answer)


class _Answer(httpx.AsyncByteStream):
    def __init__(
        self, sent: asyncio.Queue[Message], working: asyncio.Task[None], patience: float | None
    ) -> None:
        self._sent = sent
        self._working = working
        self._patience = patience

    async def next(self) -> Message:
        try:
            async with asyncio.timeout(self._patience):
                return await self._sent.get()
        except TimeoutError:
            await self.aclose()
            raise httpx.ReadTimeout("") from None
        except asyncio.CancelledError:
            self._working.cancel()
            raise

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self.next()
            yield message.get("body", b"")
            more = message.get("more_body", False)

    async def aclose(self) -> None:
        self._working.cancel()
        await asyncio.wait((self._working,))
