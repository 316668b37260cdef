"""How operations reach the backend, over whose connections, with which headers and waits."""

import asyncio
import copy
import logging
import time
from collections.abc import AsyncGenerator, Generator, Hashable, Mapping
from contextlib import aclosing, closing
from typing import Any, Self, TypeVar

import httpx

from parrot_integrations.client import managed
from parrot_integrations.client.errors import BackendLostError, BackendTimeoutError, ParrotError
from parrot_integrations.client.operations import Operation
from parrot_integrations.client.transport.answers import atranslated, checked, read, translated
from parrot_integrations.client.transport.connections import (
    UNIX,
    CallersConnections,
    Connections,
    address,
)
from parrot_integrations.client.transport.headers import request_headers
from parrot_integrations.client.transport.retries import recovery
from parrot_integrations.client.transport.settings import settings
from parrot_integrations.client.transport.sse import EventDecoder
from parrot_integrations.client.transport.timeouts import DEFAULT_TIMEOUTS, GivenTimeout, timeouts

logger = logging.getLogger(__name__)

T = TypeVar("T")

_HTTPX_DEFAULT = httpx.Timeout(5.0)
_SHORT_CONNECT = 2.0
_MAX_RETRIES = 2
_OPTIONS = {"timeout", "extra_headers"}


class Transport:
    """Sends operations to one backend, from threads and event loops, and reads what comes back.

    See `ParrotClient`, which says what there is to send.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        model: str | None = None,
        timeout: GivenTimeout = DEFAULT_TIMEOUTS,
        max_retries: int | None = None,
        default_headers: Mapping[str, str] | None = None,
    ) -> None:
        self.base_url, self.api_key, self.model = settings(base_url, api_key, model)
        self.timeout = timeouts(timeout)
        self.max_retries = _MAX_RETRIES if max_retries is None else max_retries
        self.headers = request_headers(self.api_key, default_headers)
        self._own = Connections()
        self._connections: Connections | CallersConnections = self._own
        self._callers: tuple[httpx.Client | None, httpx.AsyncClient | None] = None, None

    def over(self, sync: httpx.Client | None, of_loops: httpx.AsyncClient | None) -> Self:
        """This client with httpx clients of the caller's, and its own connections for one not given.

        The caller's are used as they are and never closed: their proxies, certificates and hooks
        hold, and so do their timeouts, unless they are httpx's default ones or `timeout` is given.
        They can't be copied or pickled, so that copies are without them.

        Raises:
            ValueError: the backend is at a Unix socket, as managed ones are: that only our own
                connections know.
        """
        if self.base_url is None or self.base_url.startswith(UNIX):
            raise ValueError(
                "http_client and http_async_client don't go through Unix sockets, at which managed "
                "backends are too: leave them out, or name the http base_url of a backend"
            )
        twin = self._twin()
        twin._callers = sync, of_loops
        twin._connections = CallersConnections(self._own, sync, of_loops)
        return twin

    def with_options(self, options: Mapping[str, Any]) -> Self:
        """This client, over the same connections, with what OpenAI's clients let a call decide.

        Args:
            options: `timeout`, in any of its forms; `extra_headers`, beside the others. Other names
                mean nothing here.

        Raises:
            ValueError: as for a client.
        """
        if not _OPTIONS & options.keys():
            return self
        twin = self._twin()
        twin.timeout = timeouts(options.get("timeout", self.timeout))
        twin.headers = self.headers | request_headers(None, options.get("extra_headers"))
        return twin

    def _twin(self) -> Self:
        twin = copy.copy(self)
        twin._own, twin._connections, twin._callers = self._own, self._connections, self._callers
        return twin

    @property
    def key(self) -> Hashable:
        """Identifies the backend, and who asks: equal for clients that can share a session."""
        model = None if self.base_url else self.model
        return (
            self.base_url,
            self.api_key,
            model,
            tuple(sorted(self.headers.items())),
            self._callers,
        )

    @property
    def _root(self) -> str:
        """Where the backend is, whether it runs or not."""
        return self.base_url or managed.backend(self.model).base_url

    def close(self) -> None:
        """Closes idle and busy connections of its own; a later request opens new ones."""
        self._connections.close()

    async def aclose(self) -> None:
        """As `close`, and waits for the running event loop's."""
        await self._connections.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _run(self, operation: Operation[T]) -> T:
        return read(operation, self._open(operation))

    async def _arun(self, operation: Operation[T]) -> T:
        return read(operation, await self._aopen(operation))

    def _started(self) -> None:
        """Wait for a managed backend that is being started.

        Raises:
            BackendStartError: as for everybody who waits for it, and it is not started again.
        """
        if self.base_url is None:
            managed.base_url(self.model)

    async def _astarted(self) -> None:
        if self.base_url is None:
            await managed.abase_url(self.model)

    async def aonce(self, operation: Operation[T], seconds: float) -> T:
        """The operation's result, asked for once and within some seconds.

        Args:
            operation: what is asked.
            seconds: for the whole of it, of which reaching the backend may take 2; a managed
                backend that starts takes its own time.

        Raises:
            ParrotError: it failed, or time ran out.
        """
        await self._astarted()
        timeout = httpx.Timeout(seconds, connect=min(seconds, _SHORT_CONNECT), pool=None)
        try:
            # Behind httpx's own, which closes its connection when it runs out.
            async with asyncio.timeout(seconds + 1):
                return read(operation, await self._aaside(operation, timeout))
        except TimeoutError:
            raise BackendTimeoutError(f"no answer within {seconds:g} s") from None

    async def _aaside(self, operation: Operation[T], timeout: httpx.Timeout) -> httpx.Response:
        """One attempt from an event loop of ours, where an async client of the caller's has no place:
        it belongs to the loops that it is used in, and would be of no use to them any more."""
        if self._callers == (None, None):
            return await self._aattempt(operation, False, timeout)
        return await asyncio.to_thread(self._attempt, operation, False, timeout)

    def _events(self, operation: Operation[T]) -> Generator[dict[str, Any], None, None]:
        decoder = EventDecoder()
        with closing(self._open(operation, stream=True)) as response, translated(self._root):
            for chunk in response.iter_bytes():
                yield from decoder.feed(chunk)
        decoder.finish()

    async def _aevents(self, operation: Operation[T]) -> AsyncGenerator[dict[str, Any], None]:
        decoder = EventDecoder()
        response = await self._aopen(operation, stream=True)
        async with aclosing(response), atranslated(self._root):
            async for chunk in response.aiter_bytes():
                for event in decoder.feed(chunk):
                    yield event
        decoder.finish()

    def _open(self, operation: Operation[T], *, stream: bool = False) -> httpx.Response:
        """The answer, or its head where `stream`, after as many attempts as it takes."""
        attempt = 0
        while True:
            try:
                return self._attempt(operation, stream)
            except ParrotError as error:
                operation, delay = self._recovery(operation, error, attempt)
            time.sleep(delay)
            attempt += 1

    async def _aopen(self, operation: Operation[T], *, stream: bool = False) -> httpx.Response:
        attempt = 0
        while True:
            try:
                return await self._aattempt(operation, stream)
            except ParrotError as error:
                operation, delay = self._recovery(operation, error, attempt)
            await asyncio.sleep(delay)
            attempt += 1

    def _attempt(
        self, operation: Operation[T], stream: bool, timeout: httpx.Timeout | None = None
    ) -> httpx.Response:
        root = self.base_url or managed.base_url(self.model)
        http = self._connections.of_process(root)
        with translated(root):
            response = http.send(self._request(http, root, operation, timeout), stream=stream)
            if response.is_error:
                response.read()
        return _heard(operation, checked(response))

    async def _aattempt(
        self, operation: Operation[T], stream: bool, timeout: httpx.Timeout | None = None
    ) -> httpx.Response:
        root = self.base_url or await managed.abase_url(self.model)
        async with self._connections.of_loop(root) as http, atranslated(root):
            request = self._request(http, root, operation, timeout)
            response = await http.send(request, stream=stream)
            if response.is_error:
                await response.aread()
        return _heard(operation, checked(response))

    def _request(
        self,
        http: httpx.Client | httpx.AsyncClient,
        root: str,
        operation: Operation[T],
        timeout: httpx.Timeout | None,
    ) -> httpx.Request:
        headers = httpx.Headers(self.headers)
        headers.update(operation.headers)
        return http.build_request(
            operation.method,
            address(root) + operation.path,
            json=operation.body,
            content=operation.content,
            params=operation.params or None,
            headers=headers,
            timeout=timeout or self._timeout_over(http),
        )

    def _timeout_over(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Timeout:
        """A client of the caller's may have waits of its own, which hold where we are told none."""
        if self.timeout == DEFAULT_TIMEOUTS and http.timeout != _HTTPX_DEFAULT:
            return http.timeout
        return httpx.Timeout(self.timeout)

    def _recovery(
        self, operation: Operation[T], error: ParrotError, attempt: int
    ) -> tuple[Operation[T], float]:
        """What to send after a failed attempt, and after how many seconds; or raises the error."""
        again = recovery(operation, error, attempt, self.max_retries)
        if isinstance(error, BackendLostError):
            logger.warning("asking again: %s", error)
        return again


def _heard(operation: Operation[Any], response: httpx.Response) -> httpx.Response:
    if operation.on_head is not None:
        operation.on_head(response.headers)
    return response
