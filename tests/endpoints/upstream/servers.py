"""A scripted server: real sockets, with answers as they are told to it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parrot_backend.endpoints.base import Job
from parrot_backend.endpoints.upstream.endpoint import UpstreamEndpoint
from parrot_backend.wire.protocol import ChatRequest

RECORDED = Path(__file__).with_name("recorded")
MODEL = "a-model"


@dataclass
class Asked:
    """A request that the server got."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    writer: asyncio.StreamWriter
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, *pieces: bytes | str) -> None:
        for piece in pieces:
            self.writer.write(piece.encode() if isinstance(piece, str) else piece)
        await self.writer.drain()

    async def events(self, *events: Any, end: bool = True) -> None:
        """A chunked stream of events; without an end it is cut there."""
        kind = "content-type: text/event-stream\r\ntransfer-encoding: chunked"
        await self.send(f"HTTP/1.1 200 OK\r\n{kind}\r\n\r\n")
        for event in events:
            await self.chunk(event)
        if end:
            await self.send("0\r\n\r\n")

    async def chunk(self, event: Any) -> None:
        text = event if isinstance(event, str) else f"data: {json.dumps(event)}\n\n"
        await self.send(f"{len(text.encode()):x}\r\n{text}\r\n")

    async def json(self, body: Any, status: int = 200, **headers: str) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        kind = "text/plain" if isinstance(body, str) else "application/json"
        told = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        await self.send(
            f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\n{told}"
            f"content-length: {len(text.encode())}\r\n\r\n{text}"
        )

    def cut(self) -> None:
        """Reset the connection."""
        self.writer.transport.abort()


Answer = Callable[[Asked], Awaitable[None]]


def delta(content: str = "", reason: str | None = None, **more: Any) -> dict[str, Any]:
    body = {"content": content} if content else {}
    return {"choices": [{"index": 0, "delta": body | more, "finish_reason": reason}]}


def usage(prompt: int, completion: int, cached: int | None = None) -> dict[str, Any]:
    details = {} if cached is None else {"prompt_tokens_details": {"cached_tokens": cached}}
    return {
        "choices": [],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, **details},
    }


DONE = "data: [DONE]\n\n"
HELLO = (delta("Hel"), delta("lo"), delta("", "stop"), usage(7, 3, 4), DONE)


async def hello(asked: Asked) -> None:
    await asked.events(*HELLO)


class Scripted:
    """Answers each path by what is in `routes`; `asked` is all that came but probes."""

    def __init__(self, owner: str = "somebody", model: str = MODEL) -> None:
        self.routes: dict[str, Answer | Any] = {}
        self.asked: list[Asked] = []
        self.probes = 0
        self.models(model, owned_by=owner)
        self.routes["/v1/chat/completions"] = hello
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    def models(self, *names: str, **fields: Any) -> None:
        data = [{"id": name, "object": "model", **fields} for name in names]
        self.routes["/v1/models"] = {"object": "list", "data": data}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def jobs(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.method == "POST"]

    async def start(self) -> None:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, limit=1 << 24
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """As kill -9 does: every connection is reset, and nothing listens any more."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while (asked := await self._read(reader, writer)) is not None:
                await self._answer(asked, reader)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    async def _read(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Asked | None:
        line = await reader.readline()
        if not line:
            return None
        method, path, _ = line.decode().split()
        headers = {}
        while (line := await reader.readline()).strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        return Asked(method, path, headers, json.loads(content) if content else None, writer)

    async def _answer(self, asked: Asked, reader: asyncio.StreamReader) -> None:
        self.probes += asked.path == "/v1/models"
        self.asked.append(asked)
        answer = self.routes.get(asked.path)
        if answer is None:
            await asked.json({"detail": "Not Found"}, 404)
        elif callable(answer):
            watching = asyncio.create_task(self._watch(asked, reader))
            try:
                await answer(asked)
            finally:
                watching.cancel()
        else:
            await asked.json(answer)

    @staticmethod
    async def _watch(asked: Asked, reader: asyncio.StreamReader) -> None:
        """Clients of ours send nothing while they wait: what there is to read is the end."""
        while not reader.at_eof() and reader.exception() is None:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        asked.closed.set()


@asynccontextmanager
async def scripted(**options: Any) -> AsyncIterator[Scripted]:
    server = Scripted(**options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def upstream(server: Scripted, **options: Any) -> AsyncIterator[UpstreamEndpoint]:
    endpoint = UpstreamEndpoint(server.url, **options)
    try:
        await endpoint.start()
        yield endpoint
    finally:
        await endpoint.aclose()


def job(content: str = "Hello?", **parameters: Any) -> Job:
    message = {"role": "user", "content": content}
    told = {name: parameters.pop(name) for name in ("tenant", "priority") if name in parameters}
    return Job(ChatRequest.model_validate({"messages": [message], **parameters}), **told)
