"""What can be asked of the backend: each operation as a request and a reading of its answer.

No input or output happens here, so that the sync and the async client share all of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar
from urllib.parse import quote
from uuid import uuid4

from parrot_backend.wire.protocol import (
    IDEMPOTENCY_HEADER,
    SESSION_HEADER,
    CallScope,
    Program,
    SessionRequest,
    SessionsAlive,
)
from parrot_backend.wire.views import EventList, GraphView, SessionEvent, SessionList, SessionView
from parrot_integrations.client.packing import packed

T = TypeVar("T")


@dataclass(frozen=True)
class Operation(Generic[T]):
    """One request, and how its JSON answer is read.

    `path` is relative to the backend's root, `params` is its query. Its JSON is `body`, or `content`
    where it is written already. `on_head` hears the headers of a good answer.
    """

    method: str
    path: str
    read: Callable[[Any], T]
    body: Any = None
    content: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    on_head: Callable[[Mapping[str, str]], None] | None = None

    @property
    def in_session(self) -> bool:
        """Whether the request may claim a planned call."""
        return SESSION_HEADER in self.headers

    def within(self, session_id: str | None) -> "Operation[T]":
        """The same request as part of a session; outside any where there is none."""
        if session_id is None:
            return self
        return replace(self, headers={**self.headers, SESSION_HEADER: session_id})

    def without_session(self) -> "Operation[T]":
        """The same request outside any session."""
        headers = {k: v for k, v in self.headers.items() if k != SESSION_HEADER}
        return replace(self, headers=headers)


def chat(body: Mapping[str, Any], scope: CallScope) -> Operation[dict[str, Any]]:
    """A chat request in OpenAI's form."""
    headers = scope.headers()
    return Operation("POST", "/v1/chat/completions", _as_it_is, dict(body), headers=headers)


def completion(body: Mapping[str, Any], scope: CallScope) -> Operation[dict[str, Any]]:
    """A request in OpenAI's form to go on from raw prompts; it claims nothing."""
    headers = scope.headers()
    return Operation("POST", "/v1/completions", _as_it_is, dict(body), headers=headers)


def tokenize(body: Mapping[str, Any]) -> Operation[list[int]]:
    """The token ids of a text, or of messages in the model's chat template."""
    return Operation("POST", "/v1/tokenize", _tokens, dict(body))


def tokenize_each(body: Mapping[str, Any]) -> Operation[list[list[int]]]:
    """The token ids of each of several texts."""
    return Operation("POST", "/v1/tokenize", _each_tokens, dict(body))


def models() -> Operation[list[dict[str, Any]]]:
    """The models that are served."""
    return Operation("GET", "/v1/models", _data)


def open_session(
    program: Program | None,
    scope: CallScope,
    closes: Sequence[str] = (),
    name: str | None = None,
    grace: float | None = None,
) -> Operation[SessionView]:
    """A new session, its first program submitted with it; sessions that are over are closed by it.

    Its plan stops when its client gives no sign of life for `grace` seconds; None for the backend's
    own bound.
    """
    opening = SessionRequest(
        id=name,
        program=packed(program) if program is not None else None,
        objective=scope.objective or "latency",
        thread=scope.thread,
        tags=scope.tags,
        closes=list(closes),
        grace=grace,
    )
    return _posted_once("/v1/sessions", opening)


def sessions_alive(session_ids: Sequence[str]) -> Operation[None]:
    """A sign of life from who opened these sessions; of no effect on closed ones."""
    alive = SessionsAlive(sessions=list(session_ids))
    return Operation("POST", "/v1/sessions/alive", _nothing, alive.model_dump())


def sessions(thread: str | None) -> Operation[list[SessionView]]:
    """The sessions that can be inspected, those of one thread where it is named."""
    params = {} if thread is None else {"thread": thread}
    return Operation("GET", "/v1/sessions", _sessions, params=params)


def session(session_id: str) -> Operation[SessionView]:
    """A session's counts."""
    return Operation("GET", _session_path(session_id), SessionView.model_validate)


def close_session(session_id: str) -> Operation[SessionView]:
    """Ends a session: what was planned and not claimed is cancelled and counted."""
    return Operation("DELETE", _session_path(session_id), SessionView.model_validate)


def submit(session_id: str, program: Program) -> Operation[SessionView]:
    """More calls for a session."""
    return _posted_once(_session_path(session_id, "/program"), packed(program))


def events(session_id: str, after: int) -> Operation[list[SessionEvent]]:
    """A session's events with a number above `after`, in order."""
    path = _session_path(session_id, "/events")
    return Operation("GET", path, _events, params={"after": after})


def graph(session_id: str) -> Operation[GraphView]:
    """A session's calls and variables, and how far they are."""
    return Operation("GET", _session_path(session_id, "/graph"), GraphView.model_validate)


def _posted_once(path: str, body: SessionRequest | Program) -> Operation[SessionView]:
    """What is done once however often it is sent: the backend knows a retry by its key."""
    # Most fields of a call are None, which is what the backend takes an absent one for.
    content = body.model_dump_json(exclude_none=True)
    headers = {"Content-Type": "application/json", IDEMPOTENCY_HEADER: uuid4().hex}
    return Operation("POST", path, SessionView.model_validate, content=content, headers=headers)


def _session_path(session_id: str, rest: str = "") -> str:
    return f"/v1/sessions/{quote(session_id, safe='')}{rest}"


def _as_it_is(answer: Any) -> dict[str, Any]:
    return dict(answer)


def _nothing(answer: Any) -> None:
    """Only that it was answered is of interest."""


def _tokens(answer: Any) -> list[int]:
    return list(answer["tokens"])


def _each_tokens(answer: Any) -> list[list[int]]:
    return [list(tokens) for tokens in answer["tokens"]]


def _data(answer: Any) -> list[dict[str, Any]]:
    return list(answer["data"])


def _sessions(answer: Any) -> list[SessionView]:
    return SessionList.model_validate(answer).data


def _events(answer: Any) -> list[SessionEvent]:
    return EventList.model_validate(answer).data
