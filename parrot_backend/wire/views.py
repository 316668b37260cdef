"""Views: how sessions, calls and variables stand, and how errors look, as clients are told."""

from typing import Literal

from pydantic import Field

from parrot_backend.wire.parameters import GenerationConfig, WireModel
from parrot_backend.wire.protocol import Objective

CallState = Literal["waiting", "queued", "running", "done", "failed", "cancelled"]
VariableState = Literal["pending", "ready", "failed"]


class AttemptView(WireModel):
    """An attempt at a call that was lost: on which engine, and why."""

    engine: str
    reason: str


class CallView(WireModel):
    """How one call of a session stands; times are in seconds since the epoch.

    Its state is `waiting` until all its inputs are there, and `queued` while it only waits for room in
    a concurrency group. It was `queued` when all its inputs were there, `dispatched` when there was
    room too and the engine got it, `claimed_at` when an equal request came, `started` when the engine
    began to compute it, where the engine tells, and `finished` when it was done, failed or cancelled.
    It is `dependent` where the end of another call made it ready, and so the backend started it with
    no client in the loop. `objective` and `group` are stated with the request or deduced from the
    program; `path` counts the calls from this one to the output that is farthest away. `engine` is the
    one that ran it last, or runs it; `attempts` are those before, which were lost.
    """

    id: str
    state: CallState
    planned: bool
    claimed: bool
    dependent: bool = False
    output: str | None = None
    inputs: list[str] = Field(default_factory=list)
    objective: Objective = "latency"
    group: str | None = None
    path: int = 1
    queued: float | None = None
    dispatched: float | None = None
    claimed_at: float | None = None
    started: float | None = None
    first_token: float | None = None
    finished: float | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    engine: str | None = None
    attempts: list[AttemptView] = Field(default_factory=list)


class GroupView(WireModel):
    """A task group: calls of which only the last to end matters; `size` is how many will be."""

    name: str
    size: int | None = None
    calls: list[str]


class VariableView(WireModel):
    """How one Semantic Variable stands; `error` is set where `state` is `failed`."""

    name: str
    state: VariableState
    value: str | None = None
    error: str | None = None


class EventList(WireModel):
    """Answer of `GET /v1/sessions/{id}/events`."""

    data: list["SessionEvent"]


class VariableValue(WireModel):
    """Body of `PUT /v1/sessions/{id}/variables/{name}`."""

    value: str


class SessionView(WireModel):
    """Counts of a session's calls; answered by create, inspect and delete.

    Of the `claimed` calls, `dependent` ones were made ready by the end of another call, with no client
    in the loop, and `ahead` ones had been with the engine for more than 10 ms when their request came.
    `unclaimed` calls were planned and done, but no request has been equal to them yet; `cancelled` ones
    were stopped before their end. `saved_seconds` is what planning took off the critical path: of each
    call on it, the time from its dispatch until its request came, or until its end, if that was first.
    It is told when the session is closed.
    """

    id: str
    object: Literal["session"] = "session"
    closed: bool = False
    created: float = 0.0
    objective: Objective = "latency"
    thread: str | None = None
    tags: list[str] = Field(default_factory=list)
    planned: int = 0
    claimed: int = 0
    dependent: int = 0
    ahead: int = 0
    unplanned: int = 0
    unclaimed: int = 0
    saved_seconds: float | None = None
    waiting: int = 0
    queued: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


class SessionList(WireModel):
    """Answer of `GET /v1/sessions`."""

    data: list[SessionView]


class GraphView(WireModel):
    """A session's program and how far it is.

    A conversation is the calls whose prompts extend one another, in order of their turns.
    """

    calls: list[CallView]
    variables: list[VariableView]
    groups: list[GroupView] = Field(default_factory=list)
    conversations: list[list[str]] = Field(default_factory=list)


EventKind = Literal[
    "variable_ready",
    "variable_failed",
    "call_planned",
    "call_queued",
    "call_started",
    "call_first_token",
    "call_done",
    "call_failed",
    "call_cancelled",
    "call_claimed",
]


class SessionEvent(WireModel):
    """One step in a session's life; `seq` orders them, `time` is in seconds since the epoch."""

    seq: int
    time: float
    kind: EventKind
    name: str


class ModelView(WireModel):
    """A model as OpenAI tells it; with its context length in tokens where that is known, as vLLM tells
    it, and with how it generates where a request does not say. An alias is told as one, with the name
    of the model that it stands for as its `root`."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "parrot"
    root: str | None = None
    max_model_len: int | None = None
    generation_config: GenerationConfig | None


class ModelList(WireModel):
    """Answer of `GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelView]


EngineState = Literal["starting", "ready", "draining", "dead", "failed"]


class Readiness(WireModel):
    """Answer of `GET /ready`: 200 where the `status` is `ready`, as one of the `engines` is, and else
    503. `model` serves who names none. Who is no operator is told numbers for the names of the engines,
    and who has no key where there are keys no model."""

    status: EngineState
    model: str | None
    engines: dict[str, EngineState] = Field(default_factory=dict)


class EngineView(WireModel):
    """An engine of the server, as operators are told; `engine` says what runs its model.

    `tenants` are those that may use it, None is all. `reason` says why one could not be
    started, or is lost.
    """

    name: str
    state: EngineState
    model: str | None = None
    aliases: list[str] = Field(default_factory=list)
    engine: str | None = None
    slots: int | None = None
    running: int = 0
    weight: float = 1.0
    tenants: list[str] | None = None
    reason: str | None = None


class EngineList(WireModel):
    """Answer of `GET /v1/engines`."""

    data: list[EngineView]


class ErrorDetail(WireModel):
    """OpenAI's error shape."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(WireModel):
    """Body of every answer that is not 2xx."""

    error: ErrorDetail
