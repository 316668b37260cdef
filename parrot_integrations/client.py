"""Sync and async client of the backend, over HTTP."""

import asyncio
import os
import random
import time
from collections.abc import AsyncGenerator, Generator, Hashable, Mapping
from contextlib import aclosing, closing
from contextvars import ContextVar
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import httpx

from parrot_backend.protocol import GraphView, Program, SessionEvent, SessionView
from parrot_integrations import managed, operations
from parrot_integrations.answers import checked, read, translated
from parrot_integrations.connections import UNIX, Connections, address
from parrot_integrations.errors import BackendConnectionError, BackendStartError, ParrotError
from parrot_integrations.operations import Operation
from parrot_integrations.sse import EventDecoder

T = TypeVar("T")

_FIRST_DELAY, _LONGEST_DELAY, _LONGEST_RETRY_AFTER = 0.5, 8.0, 60.0
_RETRYABLE_STATUS = {429, 502, 503}

active_sessions: ContextVar[Mapping[Hashable, str]] = ContextVar(
    "parrot_active_sessions", default=MappingProxyType({})
)
"""Session ids by `ParrotClient.key`: chat requests that are sent inside join their client's session."""


class ParrotClient:
    """A client of one backend. Threads may share it, and so may event loops.

    Connections are opened at the first request and kept alive; a copied, unpickled or forked client
    opens its own. Requests are sent again, with growing pauses, when no connection came about or
    was lost, and at status 429, 502 and 503; never once an answer has begun to stream.

    Args:
        base_url: of the backend, with or without `/v1`, or `unix:` and the path of its socket;
            defaults to PARROT_BASE_URL. With neither, a managed backend is started at the first
            request (see `parrot_integrations.managed`).
        api_key: sent as bearer token; defaults to PARROT_API_KEY.
        model: the model that a managed backend is to serve; defaults to PARROT_MODEL, and then to
            the backend's own default.
        timeout: longest wait for the next byte of an answer, in seconds.
        max_retries: how often a request is sent again.

    Raises:
        ValueError: base_url is neither an http(s) URL nor a Unix socket.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        model: str | None = None,
        timeout: float = 600.0,
        max_retries: int = 2,
    ) -> None:
        self.base_url, self.api_key, self.model = _settings(base_url, api_key, model)
        self.timeout = timeout
        self.max_retries = max_retries
        self._connections = Connections(
            self.base_url or "http://127.0.0.1",
            timeout=timeout,
            headers={"Authorization": f"Bearer {self.api_key}"} if self.api_key else {},
        )

    @property
    def key(self) -> Hashable:
        """Identifies the backend, and who asks: equal for clients that can share a session."""
        return self.base_url, self.api_key, None if self.base_url else self.model

    def chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Answers a chat request in OpenAI's form.

        Raises:
            ParrotError: see `parrot_integrations.errors`; so for all methods.
        """
        return self._run(self._chat(body))

    async def achat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """As `chat`."""
        return await self._arun(self._chat(body))

    def stream_chat(self, body: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        """The chunks of a chat answer in OpenAI's form, as they come.

        Closing the generator closes the connection, and the backend drops the call.
        """
        return self._events(self._chat({**body, "stream": True}))

    def astream_chat(self, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """As `stream_chat`."""
        return self._aevents(self._chat({**body, "stream": True}))

    def models(self) -> list[dict[str, Any]]:
        """The models that are served: `id`, `max_model_len` in tokens, and OpenAI's fields."""
        return self._run(operations.models())

    async def amodels(self) -> list[dict[str, Any]]:
        """As `models`."""
        return await self._arun(operations.models())

    def open_session(self, program: Program | None = None) -> SessionView:
        """Opens a session and submits its first program with it."""
        return self._run(operations.open_session(program))

    async def aopen_session(self, program: Program | None = None) -> SessionView:
        """As `open_session`."""
        return await self._arun(operations.open_session(program))

    def session(self, session_id: str) -> SessionView:
        """A session's counts."""
        return self._run(operations.session(session_id))

    async def asession(self, session_id: str) -> SessionView:
        """As `session`."""
        return await self._arun(operations.session(session_id))

    def close_session(self, session_id: str) -> SessionView:
        """Ends a session and gives its final counts; calls that nobody claimed are cancelled."""
        return self._run(operations.close_session(session_id))

    async def aclose_session(self, session_id: str) -> SessionView:
        """As `close_session`."""
        return await self._arun(operations.close_session(session_id))

    def submit(self, session_id: str, program: Program) -> SessionView:
        """Extends a session's program."""
        return self._run(operations.submit(session_id, program))

    async def asubmit(self, session_id: str, program: Program) -> SessionView:
        """As `submit`."""
        return await self._arun(operations.submit(session_id, program))

    def events(self, session_id: str, after: int = 0) -> list[SessionEvent]:
        """A session's events with a number above `after`, in order."""
        return self._run(operations.events(session_id, after))

    async def aevents(self, session_id: str, after: int = 0) -> list[SessionEvent]:
        """As `events`."""
        return await self._arun(operations.events(session_id, after))

    def graph(self, session_id: str) -> GraphView:
        """A session's calls and variables, and how far they are."""
        return self._run(operations.graph(session_id))

    async def agraph(self, session_id: str) -> GraphView:
        """As `graph`."""
        return await self._arun(operations.graph(session_id))

    def close(self) -> None:
        """Closes idle and busy connections; a later request opens new ones."""
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

    def __repr__(self) -> str:
        return f"ParrotClient({self.base_url or 'managed'!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        settings = self.base_url, self.api_key, self.model, self.timeout, self.max_retries
        return _client, settings

    def _chat(self, body: Mapping[str, Any]) -> Operation[dict[str, Any]]:
        return operations.chat(body, active_sessions.get().get(self.key))

    def _run(self, operation: Operation[T]) -> T:
        return read(operation, self._open(operation))

    async def _arun(self, operation: Operation[T]) -> T:
        return read(operation, await self._aopen(operation))

    def _events(self, operation: Operation[T]) -> Generator[dict[str, Any], None, None]:
        decoder = EventDecoder()
        with closing(self._open(operation, stream=True)) as response, translated(response.url):
            for chunk in response.iter_bytes():
                yield from decoder.feed(chunk)
        decoder.finish()

    async def _aevents(self, operation: Operation[T]) -> AsyncGenerator[dict[str, Any], None]:
        decoder = EventDecoder()
        async with aclosing(await self._aopen(operation, stream=True)) as response:
            with translated(response.url):
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

    def _attempt(self, operation: Operation[T], stream: bool) -> httpx.Response:
        root = self.base_url or managed.base_url(self.model)
        http = self._connections.of_process()
        with translated(root):
            response = http.send(_request(http, root, operation), stream=stream)
            if response.is_error:
                response.read()
        return checked(response)

    async def _aattempt(self, operation: Operation[T], stream: bool) -> httpx.Response:
        root = self.base_url or await managed.abase_url(self.model)
        http = await self._connections.of_loop()
        with translated(root):
            response = await http.send(_request(http, root, operation), stream=stream)
            if response.is_error:
                await response.aread()
        return checked(response)

    def _recovery(
        self, operation: Operation[T], error: ParrotError, attempt: int
    ) -> tuple[Operation[T], float]:
        """What to send after a failed attempt, and after how many seconds; or raises the error."""
        if operation.in_session and error.code == "session_not_found":
            # A plan is only a hint: without its session the request is an ordinary one.
            return operation.without_session(), 0.0
        if attempt >= self.max_retries or not _is_retryable(error):
            raise error
        if error.retry_after is not None:
            return operation, min(error.retry_after, _LONGEST_RETRY_AFTER)
        return operation, min(_FIRST_DELAY * 2**attempt, _LONGEST_DELAY) * random.uniform(0.75, 1)


def shared_client(
    base_url: str | None,
    *,
    api_key: str | None,
    model: str | None,
    timeout: float,
    max_retries: int,
) -> ParrotClient:
    """One client, and so one pool of connections, for all who have the same settings."""
    settings = _settings(base_url, api_key, model)
    return _cached_client(*settings, timeout, max_retries)


def _client(
    base_url: str | None, api_key: str | None, model: str | None, timeout: float, max_retries: int
) -> ParrotClient:
    return ParrotClient(
        base_url, api_key=api_key, model=model, timeout=timeout, max_retries=max_retries
    )


_cached_client = lru_cache(maxsize=64)(_client)


def _settings(
    base_url: str | None, api_key: str | None, model: str | None
) -> tuple[str | None, str | None, str | None]:
    """The three with the environment's values in place of None; a managed backend's URL is None."""
    base_url = base_url or os.environ.get("PARROT_BASE_URL")
    api_key = api_key or os.environ.get("PARROT_API_KEY")
    root = _root(base_url) if base_url else None
    return root, api_key or None, managed.named_model(model)


def _root(base_url: str) -> str:
    if base_url.startswith(UNIX):
        return base_url
    root = base_url.rstrip("/").removesuffix("/v1").rstrip("/")
    url = urlsplit(root)
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise ValueError(
            f"base_url must look like http://127.0.0.1:8642 or unix:/path, not {base_url!r}"
        )
    return root


def _request(
    http: httpx.Client | httpx.AsyncClient, root: str, operation: Operation[Any]
) -> httpx.Request:
    return http.build_request(
        operation.method,
        address(root) + operation.path,
        json=operation.body,
        params=operation.params or None,
        headers=operation.headers,
    )


def _is_retryable(error: ParrotError) -> bool:
    lost = isinstance(error, BackendConnectionError) and not isinstance(error, BackendStartError)
    return lost or error.status in _RETRYABLE_STATUS
