"""Many clients at once, over HTTP: a thousand who read on, and two hundred who leave."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest

from tests.processes import Served, allow_connections, parrot_serve
from tests.servers import eventually
from tests.streams import paced, read_all, send

STREAMS, TOKENS, PACE = 1000, 5, 1.0
CLIENTS = 200
BACK_SECONDS, TEN_TOKENS_SECONDS = 1, 5
LATITUDE = 10  # for a machine that has other work to do


@pytest.mark.parametrize("apart", [False, True], ids=["engine within", "engine apart"])
async def test_a_thousand_streams_at_once_get_all_of_their_chunks(apart: bool) -> None:
    allow_connections()
    with paced(TOKENS, PACE, apart=apart) as (url, server):
        read = await read_all(url, server, STREAMS, PACE)
    assert read.errors == []
    assert read.most_open == STREAMS
    assert len(read.added) == STREAMS * TOKENS
    print(f"{read.bytes_per_stream / 1024:.0f} KiB per stream")


@pytest.fixture(scope="module")
def served(model_path: str) -> Iterator[Served]:
    with parrot_serve("--kv-memory", "512MiB", "--model", model_path) as served:
        yield served


def load(served: Served) -> tuple[int, int, int]:
    stats = served.stats()
    return stats["running"], stats["waiting"], stats["kv_used_tokens"]


def chat(number: int, max_tokens: int, *, stream: bool = False) -> dict[str, object]:
    messages = [{"role": "user", "content": f"Tell the story of the year {1000 + number}."}]
    return {"messages": messages, "max_tokens": max_tokens, "stream": stream, "temperature": 0}


def seconds_of_ten_tokens(served: Served) -> float:
    """How long they take."""
    asked = time.monotonic()
    url, body = f"{served.url}/v1/chat/completions", chat(CLIENTS, 10)
    answer = httpx.post(url, json=body, timeout=60).raise_for_status()
    assert answer.json()["usage"]["completion_tokens"] == 10
    return time.monotonic() - asked


async def ask_and_leave(served: Served, seconds: float) -> None:
    """Ask for very long answers, half of them streamed, and leave when the first has run so long."""
    bodies = [chat(number, 10_000, stream=number % 2 == 0) for number in range(CLIENTS)]
    asked = [await send(served.url, body) for body in bodies]
    assert await asyncio.to_thread(eventually, lambda: served.stats()["running"] > 0, 60)
    await asyncio.sleep(seconds)
    statuses = {await first_line(reader) for reader, _ in asked}
    assert statuses <= {b"", b"HTTP/1.1 200 OK\r\n"}, "the rest is to wait, not to be refused"
    for _, writer in asked:
        writer.close()
        await writer.wait_closed()


async def first_line(reader: asyncio.StreamReader) -> bytes:
    """Of an answer, if it has come."""
    with suppress(TimeoutError):
        return await asyncio.wait_for(reader.readline(), 0.001)
    return b""


@pytest.mark.model
def test_what_was_asked_by_clients_who_left_takes_nothing_any_more(served: Served) -> None:
    """As vLLM's `test_request_cancellation`."""
    seconds_of_ten_tokens(served)
    before, prefilled = load(served), served.stats()["tokens_prefilled"]
    asyncio.run(ask_and_leave(served, 0.5))
    left = time.monotonic()
    assert eventually(lambda: load(served) == before, LATITUDE * BACK_SECONDS), load(served)
    print(f"all is back {time.monotonic() - left:.2f} s after the last client left")
    assert served.stats()["tokens_prefilled"] > prefilled, "they left before anything had begun"
    seconds = seconds_of_ten_tokens(served)
    print(f"ten tokens in {seconds:.2f} s")
    assert seconds < LATITUDE * TEN_TOKENS_SECONDS
