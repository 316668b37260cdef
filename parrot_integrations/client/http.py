"""Sync and async client of the backend, over HTTP."""

import asyncio
from collections.abc import AsyncGenerator, Generator, Hashable, Mapping
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from parrot_backend.wire.protocol import CallScope, Program
from parrot_backend.wire.views import GraphView, SessionEvent, SessionView
from parrot_integrations.client import operations
from parrot_integrations.client.background import PendingSession, Submitted
from parrot_integrations.client.operations import Operation
from parrot_integrations.client.scope import active_scope
from parrot_integrations.client.transport.sending import Transport

active_sessions: ContextVar[Mapping[Hashable, PendingSession]] = ContextVar(
    "parrot_active_sessions", default=MappingProxyType({})
)
"""Sessions by `ParrotClient.key`: chat requests that are sent inside join their client's session."""

asked_clients: ContextVar["dict[Hashable, ParrotClient] | None"] = ContextVar(
    "parrot_asked_clients", default=None
)
"""Where the clients that send a request inside are noted, by their keys."""


class ParrotClient(Transport):
    """A client of one backend. Threads may share it, and so may event loops.

    Connections are opened at the first request and kept alive; a copied, unpickled or forked client
    opens its own. Requests are sent again, with growing pauses, when no connection came about or
    was lost, and at status 408, 429, 502 and 503; never once an answer has begun to stream.

    Args:
        base_url: of the backend, with or without `/v1`, or `unix:` and the path of its socket;
            defaults to PARROT_BASE_URL. With neither, a managed backend is started at the first
            request (see `parrot_integrations.client.managed`).
        api_key: sent as bearer token; defaults to PARROT_API_KEY.
        model: the model that a managed backend is to serve; defaults to PARROT_MODEL, and then to
            the backend's own default.
        timeout: longest wait for the next byte of an answer, in seconds; None for as long as it
            takes, or one of httpx's other forms (see `timeouts`).
        max_retries: how often a request is sent again; None for twice.
        default_headers: sent with every request.

    Raises:
        ValueError: base_url is neither an http(s) URL nor a Unix socket; or api_key or a header
            has characters that can't be sent.
    """

    def chat(self, body: Mapping[str, Any], scope: CallScope | None = None) -> dict[str, Any]:
        """Answers a chat request in OpenAI's form.

        Args:
            body: the request.
            scope: where it belongs; None for what the context says. So for all requests.

        Raises:
            ParrotError: see `parrot_integrations.client.errors`; so for all methods.
        """
        return self._run(self._joined(*self._chat(body, scope)))

    async def achat(
        self, body: Mapping[str, Any], scope: CallScope | None = None
    ) -> dict[str, Any]:
        """As `chat`."""
        return await self._arun(await self._ajoined(*self._chat(body, scope)))

    def stream_chat(
        self, body: Mapping[str, Any], scope: CallScope | None = None
    ) -> Generator[dict[str, Any], None, None]:
        """The chunks of a chat answer in OpenAI's form, as they come.

        Closing the generator closes the connection, and the backend drops the call.
        """
        return self._chunks(*self._chat({**body, "stream": True}, scope))

    def astream_chat(
        self, body: Mapping[str, Any], scope: CallScope | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """As `stream_chat`."""
        return self._achunks(*self._chat({**body, "stream": True}, scope))

    def complete(self, body: Mapping[str, Any], scope: CallScope | None = None) -> dict[str, Any]:
        """Goes on from raw prompts, in OpenAI's form of completions, without a chat template."""
        return self._run(self._completion(body, scope))

    async def acomplete(
        self, body: Mapping[str, Any], scope: CallScope | None = None
    ) -> dict[str, Any]:
        """As `complete`."""
        return await self._arun(self._completion(body, scope))

    def stream_completion(
        self, body: Mapping[str, Any], scope: CallScope | None = None
    ) -> Generator[dict[str, Any], None, None]:
        """The chunks of a completion, as they come; see `stream_chat`."""
        return self._events(self._completion({**body, "stream": True}, scope))

    def astream_completion(
        self, body: Mapping[str, Any], scope: CallScope | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """As `stream_completion`."""
        return self._aevents(self._completion({**body, "stream": True}, scope))

    def tokenize(self, body: Mapping[str, Any]) -> list[int]:
        """Token ids of a `prompt`, or of `messages` in the model's chat template."""
        return self._run(operations.tokenize(body))

    def tokenize_each(self, body: Mapping[str, Any]) -> list[list[int]]:
        """Token ids of each text in a `prompt` that is a list.

        At most 4096 of them at once, and 131,072 characters.
        """
        return self._run(operations.tokenize_each(body))

    def models(self) -> list[dict[str, Any]]:
        """The models that are served: `id`, `max_model_len` in tokens, and OpenAI's fields."""
        return self._run(operations.models())

    async def amodels(self) -> list[dict[str, Any]]:
        """As `models`."""
        return await self._arun(operations.models())

    def pending_session(self) -> PendingSession:
        """A session that is opened, extended and closed without anybody waiting for it."""
        return PendingSession(self, self._scope())

    def open_session(self, program: Program | None = None) -> SessionView:
        """Opens a session and submits its first program with it."""
        return self._run(operations.open_session(program, self._scope()))

    async def aopen_session(self, program: Program | None = None) -> SessionView:
        """As `open_session`."""
        return await self._arun(operations.open_session(program, self._scope()))

    def sessions(self, thread: str | None = None) -> list[SessionView]:
        """The open sessions and the last closed ones, the newest first; of one thread, if named."""
        return self._run(operations.sessions(thread))

    async def asessions(self, thread: str | None = None) -> list[SessionView]:
        """As `sessions`."""
        return await self._arun(operations.sessions(thread))

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

    def __repr__(self) -> str:
        return f"ParrotClient({self.base_url or 'managed'!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        settings: dict[str, Any] = {
            "api_key": self.api_key,
            "model": self.model,
            "timeout": self.timeout,
            "max_retries": self.max_retries,
            "default_headers": self.headers,
        }
        return partial(ParrotClient, self.base_url, **settings), ()

    def _chat(
        self, body: Mapping[str, Any], scope: CallScope | None
    ) -> tuple[Operation[dict[str, Any]], Submitted | None]:
        """The request, and what it must not overtake: the plan that it may claim a call of."""
        session = active_sessions.get().get(self.key)
        operation = operations.chat(body, self._scope(scope))
        if session is None:
            return operation, None
        return replace(operation, on_head=session.heard), session.submitted

    def _joined(
        self, operation: Operation[dict[str, Any]], submitted: Submitted | None
    ) -> Operation[dict[str, Any]]:
        """The request as part of its session, when the plan has been answered."""
        if submitted is None:
            return operation
        if not submitted.done():
            self._started()
        return operation.within(submitted.result())

    async def _ajoined(
        self, operation: Operation[dict[str, Any]], submitted: Submitted | None
    ) -> Operation[dict[str, Any]]:
        """As `_joined`; who waits here can be cancelled, and others go on waiting."""
        if submitted is None:
            return operation
        if not submitted.done():
            await self._astarted()
            await asyncio.wrap_future(submitted)
        return operation.within(submitted.result())

    def _chunks(
        self, operation: Operation[dict[str, Any]], submitted: Submitted | None
    ) -> Generator[dict[str, Any], None, None]:
        yield from self._events(self._joined(operation, submitted))

    async def _achunks(
        self, operation: Operation[dict[str, Any]], submitted: Submitted | None
    ) -> AsyncGenerator[dict[str, Any], None]:
        async with aclosing(self._aevents(await self._ajoined(operation, submitted))) as events:
            async for event in events:
                yield event

    def _completion(
        self, body: Mapping[str, Any], scope: CallScope | None
    ) -> Operation[dict[str, Any]]:
        return operations.completion(body, self._scope(scope))

    def _scope(self, scope: CallScope | None = None) -> CallScope:
        """The scope of a request that is about to be sent; that it is sent is noted."""
        if (asked := asked_clients.get()) is not None:
            asked[self.key] = self
        return scope or active_scope.get()
