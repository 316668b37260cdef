"""Wire types: everything that travels between a client and the backend.

Light to import: pydantic only. A `SemanticCall` is a chat request whose message contents are made of
segments, literal text or a reference to a Semantic Variable (Parrot, OSDI'24, section 4.1). Rendered,
it *is* a `ChatRequest`, and claiming compares the two.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from parrot_backend.parameters import GenerationParameters, WireModel, without_neutral

Role = Literal["system", "user", "assistant", "tool"]
Objective = Literal["latency", "throughput", "ttft", "tpot"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:\-]{1,128}$")]

SESSION_HEADER = "x-parrot-session"
CALL_HEADER = "x-parrot-call"
CLAIMED_HEADER = "x-parrot-claimed"


class TextSegment(WireModel):
    """Literal text of a message."""

    type: Literal["text"] = "text"
    text: str


class VariableSegment(WireModel):
    """The place in a message where a Semantic Variable's value goes."""

    type: Literal["variable"] = "variable"
    name: Name


Segment = Annotated[TextSegment | VariableSegment, Field(discriminator="type")]
Text = list[Segment]


def _joined_text(content: Any) -> Any:
    """OpenAI lets content be a list of text parts; here it is one string."""
    if content is None:
        return ""
    if isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") == "text" for part in content
    ):
        return "".join(str(part.get("text", "")) for part in content)
    return content


def _openai_role(role: Any) -> Any:
    return "system" if role == "developer" else role


class ChatMessage(WireModel):
    """One message of a chat, its content one string."""

    role: Annotated[Role, BeforeValidator(_openai_role)]
    content: Annotated[str, BeforeValidator(_joined_text)] = ""
    name: str | None = None


class SemanticMessage(WireModel):
    """One message of a semantic call, its content segments that are joined without separator."""

    role: Role
    content: Text
    name: str | None = None


class StreamOptions(WireModel):
    """OpenAI's options of a streamed answer."""

    include_usage: bool = False


class ChatRequest(GenerationParameters):
    """Body of `/v1/chat/completions` and of `/v1/sessions/{id}/calls`."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=4096)
    n: int | None = Field(default=None, ge=1, le=128)
    stream: bool = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_neutral(cls, body: Any) -> Any:
        """Requests that ask for the same are equal, and only other values are refused."""
        return without_neutral(body)

    def choices(self) -> list["ChatRequest"]:
        """One request for each choice; the seed of each is one above that of the one before."""
        if self.n is None:
            return [self]
        seeds = [None if self.seed is None else _wrapped(self.seed + i) for i in range(self.n)]
        return [self.model_copy(update={"n": None, "seed": seed}) for seed in seeds]

    def claim_key(self) -> str:
        """The request's identity: equal keys ask for the same generation."""
        return self.model_dump_json(exclude={"stream", "stream_options"}, exclude_none=True)


def _wrapped(seed: int) -> int:
    """After the largest seed comes the smallest."""
    return (seed + 2**63) % 2**64 - 2**63


class SemanticCall(GenerationParameters):
    """One planned LLM request; it writes one variable."""

    id: Name
    messages: list[SemanticMessage] = Field(min_length=1, max_length=4096)
    output: Name

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"call '{self.id}'"


class Transform(WireModel):
    """A pure text step that the backend runs itself: `inputs` joined by `separator` into `output`."""

    op: Literal["join"] = "join"
    inputs: list[Text] = Field(max_length=10_000)
    separator: str = ""
    output: Name

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"transform '{self.output}'"


class Output(WireModel):
    """A variable that somebody will read, and what they want of it."""

    variable: Name
    objective: Objective = "latency"


class Program(WireModel):
    """Semantic calls over Semantic Variables, submitted together; acyclic through its variables.

    `variables` declares inputs: a value, or null for one that is set later.
    """

    variables: dict[Name, str | None] = Field(default_factory=dict, max_length=10_000)
    transforms: list[Transform] = Field(default_factory=list, max_length=10_000)
    calls: list[SemanticCall] = Field(default_factory=list, max_length=10_000)
    outputs: list[Output] = Field(default_factory=list, max_length=10_000)


class SessionRequest(WireModel):
    """Body of `POST /v1/sessions`; a program saves a round trip."""

    program: Program | None = None


CallState = Literal["waiting", "running", "done", "failed", "cancelled"]
VariableState = Literal["pending", "ready", "failed"]


class CallView(WireModel):
    """How one call of a session stands."""

    id: str
    state: CallState
    planned: bool
    claimed: bool
    output: str | None = None
    inputs: list[str] = Field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


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

    `unclaimed` calls were planned and done, but no request has been equal to them yet; `cancelled`
    ones were stopped before their end.
    """

    id: str
    object: Literal["session"] = "session"
    closed: bool = False
    planned: int = 0
    claimed: int = 0
    unplanned: int = 0
    unclaimed: int = 0
    waiting: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


class GraphView(WireModel):
    """A session's program and how far it is."""

    calls: list[CallView]
    variables: list[VariableView]


EventKind = Literal[
    "variable_ready",
    "variable_failed",
    "call_planned",
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


class ErrorDetail(WireModel):
    """OpenAI's error shape."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(WireModel):
    """Body of every answer that is not 2xx."""

    error: ErrorDetail
