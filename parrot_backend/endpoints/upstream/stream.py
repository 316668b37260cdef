"""`Stream`: one answer on its way from an upstream, event by event."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import httpx

from parrot_backend.endpoints.upstream.client import Client, check_plain, parsed_body
from parrot_backend.endpoints.upstream.faults import lost, quoted, raise_for, told_in_stream
from parrot_backend.wire.errors import EndpointLostError, EngineError, ParrotError

T = TypeVar("T")

LONGEST_LINE = 1 << 23
"""Bytes without an event; the ids of the longest prompts are told in one line."""
LONGEST_ANSWER = 1 << 29
"""Bytes; a hundred thousand tokens with the most likely twenty for each are half of it."""
SILENT_SECONDS = 600.0
"""An upstream that says nothing for so long has lost the request, however well it is otherwise."""
_ENDING_SECONDS = 0.25
_IN_A_TURN = 64
ERROR_SECONDS = 10.0
"""Within which the words of an error have to be there, when it has been told that it is one."""


class Stream:
    """Reads one answer; `lose` ends it from outside, whatever is waited for with `wait`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._place = client.address.place
        self._response: httpx.Response | None = None
        self._waiting: asyncio.Timeout | None = None
        self._why: ParrotError | None = None
        self._patience: asyncio.TimerHandle | None = None
        self.answered = False
        self.heard = time.monotonic()

    async def open(self, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Send a request, and wait until its answer begins; the events are those of the answer.

        Raises:
            BusyError, RefusedError, ParrotError: see `faults.raise_for`.
            EndpointLostError: an error breaks off.
            httpx.HTTPError: the connection failed.
        """
        self._be_patient()
        http = self._client.http
        request = http.build_request("POST", self._client.url(path), json=body)
        response = await self.wait(partial(http.send, request, stream=True))
        self._response, self.answered, self.heard = response, True, time.monotonic()
        check_plain(response)
        if response.status_code != 200:
            told = await self._error(response)
            status, key = response.status_code, self._client.key
            raise_for(status, told, response.headers, self._place, key)
            raise EndpointLostError(f"{self._place} answers {status} where an answer was to begin")
        kind = response.headers.get("content-type", "")
        if not kind.startswith("text/event-stream"):
            kind = quoted(kind, self._client.key)[:80]
            raise EndpointLostError(f"{self._place} answers in '{kind}' and not as a stream")
        return self._events(response)

    async def _events(self, response: httpx.Response) -> AsyncGenerator[dict[str, Any], None]:
        """The events up to the end, whether it is told (`[DONE]`) or the connection just ends.

        Raises:
            ParrotError, BusyError, RefusedError: the server broke off, or sends what is no answer.
        """
        pieces = response.aiter_bytes()
        rest, size, silent = bytearray(), 0, 0
        for count in itertools.count(1):
            try:
                piece = await self.wait(partial(anext, pieces))
            except StopAsyncIteration:
                return
            except httpx.HTTPError as error:
                raise lost(error, self._place) from None
            self.heard = time.monotonic()
            size, silent = size + len(piece), silent + len(piece)
            if count % _IN_A_TURN == 0:  # they may all be there already
                await asyncio.sleep(0)
            if size > LONGEST_ANSWER:
                raise EngineError(f"{self._place} sends an answer that does not end")
            if silent > LONGEST_LINE:
                raise EndpointLostError(f"{self._place} sends a line that does not end")
            rest += piece
            if b"\n" not in piece:
                continue
            *lines, rest = rest.split(b"\n")
            for line in lines:
                data = _data_of(line)
                if data == b"[DONE]":
                    await self._read_out(pieces)
                    return
                if data:
                    silent = len(rest)
                    yield self._event(data)

    def lose(self, why: ParrotError) -> None:
        """End it with this error; the first one counts."""
        if self._why is not None:
            return
        self._why = why
        if self._waiting is not None:
            self._waiting.reschedule(0.0)

    async def aclose(self) -> None:
        """Close the connection, but where the answer is at its end: that ends it over there too."""
        if self._patience is not None:
            self._patience.cancel()
        if self._response is not None:
            await self._response.aclose()

    async def wait(self, what: Callable[[], Awaitable[T]]) -> T:
        """Wait for something, unless this is lost meanwhile; one thing at a time.

        Raises:
            ParrotError: it is; or what raises it.
        """
        if self._why is not None:
            raise self._why
        try:
            async with asyncio.timeout(None) as self._waiting:
                return await what()
        except TimeoutError:
            raise self._why or EndpointLostError(f"{self._place} does not answer") from None
        finally:
            self._waiting = None

    async def _error(self, response: httpx.Response) -> Any:
        """The body of an answer that tells an error.

        Raises:
            EndpointLostError: it does not come to its end.
        """
        try:
            async with asyncio.timeout(ERROR_SECONDS):
                return await self.wait(partial(parsed_body, response))
        except (TimeoutError, httpx.HTTPError):
            told = f"{self._place} answers {response.status_code} and breaks off"
            raise EndpointLostError(told) from None

    def _be_patient(self) -> None:
        """One timer for all pieces: what has said something meanwhile has all the time again."""
        left = self.heard + SILENT_SECONDS - time.monotonic()
        if left > 0:
            self._patience = asyncio.get_running_loop().call_later(left, self._be_patient)
        else:
            self.lose(EndpointLostError(f"{self._place} said nothing for {SILENT_SECONDS:.0f} s"))

    def _event(self, data: bytes) -> dict[str, Any]:
        try:
            event = json.loads(str(data, "utf-8"))
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict):
            raise EndpointLostError(f"{self._place} sends what is no answer")
        if event.get("error"):
            raise told_in_stream(event, self._place, self._client.key)
        return event

    @staticmethod
    async def _read_out(pieces: AsyncIterator[bytes]) -> None:
        """Up to the end of the body, mostly there already: only then the connection serves again."""
        try:
            async with asyncio.timeout(_ENDING_SECONDS):
                async for _ in pieces:
                    pass
        except (TimeoutError, httpx.HTTPError):
            return


def _data_of(line: bytearray) -> bytes:
    """What a line of the stream tells; of comments and other fields nothing."""
    name, _, value = bytes(line).strip().partition(b":")
    return value.strip() if name in (b"data", b"error") else b""
