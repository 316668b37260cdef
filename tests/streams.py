"""Many streams at once: an engine that keeps a pace, and a client light enough to read them all.

    python -m tests.streams --tokens 10 --pace 1 [--apart]

serves the engine, in the server's own process or apart in one of its own. The first line printed is
the address; the server ends with its stdin.
"""

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx

from parrot_backend.api.app import create_app
from parrot_backend.endpoints.local import LocalEndpoint
from parrot_backend.engines.base import Delta, GenerationRequest
from parrot_backend.server import bind, run, url_of
from parrot_backend.serving.dispatch.fleet import Fleet, Member
from tests.doubles import ScriptedEngine
from tests.processes import children, resident_bytes

ROOT = Path(__file__).parents[1]


class PacedEngine(ScriptedEngine):
    """Answers everything a token at its pace, each the time at which it was made."""

    def __init__(self, tokens: int, pace: float) -> None:
        super().__init__()
        self._tokens = tokens
        self._pace = pace

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        for left in reversed(range(self._tokens)):
            await asyncio.sleep(self._pace)
            yield Delta(str(time.perf_counter()), (0,), 0, None if left else "stop")


@dataclass(slots=True)
class Read:
    """What many streams brought: seconds that each chunk was on its way, and what went wrong."""

    added: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    most_open: int = 0
    bytes_per_stream: float = 0.0
    open: int = 0


@contextmanager
def paced(tokens: int, pace: float, *, apart: bool = False) -> Iterator[tuple[str, int]]:
    """Base URL and process of a server over a paced engine."""
    command = [sys.executable, "-m", "tests.streams", "--tokens", str(tokens), "--pace", str(pace)]
    command += ["--apart"] if apart else []
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process.pid
        process.stdin.close()


async def read_all(url: str, server: int, streams: int, pace: float) -> Read:
    """Read so many streams at once; they begin evenly spread over the first `pace` seconds."""
    read, before = Read(), _bytes_of(server)
    tasks = [
        asyncio.create_task(_read_one(url, number, number * pace / streams, read))
        for number in range(streams)
    ]
    while not all(task.done() for task in tasks):
        held = _bytes_of(server) - before
        read.bytes_per_stream = max(read.bytes_per_stream, held / streams)
        await asyncio.sleep(0.5)
    for task in tasks:
        task.result()
    return read


async def send(url: str, body: dict[str, object]) -> tuple[StreamReader, StreamWriter]:
    """Ask for a chat; what comes is there to be read.

    Raises:
        OSError: the server can't be reached.
    """
    address, content = httpx.URL(url), json.dumps(body).encode()
    reader, writer = await asyncio.open_connection(address.host, address.port)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address.host}:{address.port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        "Connection: close\r\n\r\n"
    )
    writer.write(head.encode() + content)
    return reader, writer


async def _read_one(url: str, number: int, delay: float, read: Read) -> None:
    await asyncio.sleep(delay)
    messages = [{"role": "user", "content": f"stream {number}"}]
    try:
        reader, writer = await send(url, {"messages": messages, "stream": True})
    except OSError as error:
        read.errors.append(repr(error))
        return
    read.open += 1
    read.most_open = max(read.most_open, read.open)
    try:
        await _read_events(reader, read)
    except OSError as error:
        read.errors.append(repr(error))
    finally:
        read.open -= 1
        writer.close()


async def _read_events(reader: StreamReader, read: Read) -> None:
    status = await reader.readline()
    if b" 200 " not in status:
        read.errors.append(status.decode())
    line = b""
    async for line in reader:
        if line.startswith(b"data: {"):
            now, event = time.perf_counter(), json.loads(line.removeprefix(b"data: "))
            if "error" in event:
                read.errors.append(event["error"]["message"])
            elif made := event["choices"][0]["delta"].get("content"):
                read.added.append(now - float(made))
        elif line.startswith(b"data: [DONE]"):
            return
    read.errors.append("the stream has no end")


def _bytes_of(server: int) -> int:
    """Of a server, with its engine."""
    return sum(map(resident_bytes, (server, *children(server))))


def _serve(tokens: int, pace: float, *, apart: bool) -> None:
    """Until the end of stdin."""
    listener = bind("127.0.0.1", 0)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    served = partial(
        run, sock=listener, on_ready=lambda: print(url_of(listener), flush=True), grace_seconds=1
    )
    if apart:
        from parrot_backend.endpoints.process.endpoint import ProcessEndpoint
        from parrot_backend.endpoints.process.recipe import Recipe

        options = {"tokens": tokens, "pace": pace}
        endpoint = ProcessEndpoint(Recipe(options, "tests.streams:PacedEngine"))
        fleet = Fleet()
        start = partial(fleet.open, [Member("apart", endpoint)])
        served(create_app(fleet), start=start)
    else:
        served(create_app(Fleet(Member("local", LocalEndpoint(PacedEngine(tokens, pace))))))


def _end_with_stdin() -> None:
    sys.stdin.read()
    signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tokens", type=int, required=True)
    options.add_argument("--pace", type=float, required=True)
    options.add_argument("--apart", action="store_true")
    _serve(**vars(options.parse_args()))
