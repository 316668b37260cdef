"""Wire types: requests and programs, what a client sends the backend.

Light to import, as `messages` and `views` are: pydantic only. A `SemanticCall` is a chat request whose
message contents are made of segments, literal text or a reference to a Semantic Variable (Parrot,
OSDI'24, section 4.1). Rendered, it *is* a `ChatRequest`, and claiming compares the two.
"""

from hashlib import blake2b
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import (
    Field,
    model_validator,
)

from parrot_backend.wire.messages import (
    ChatMessage,
    Messages,
    Name,
    SemanticMessage,
)
from parrot_backend.wire.parameters import WireModel, choice_seeds, without_neutral
from parrot_backend.wire.tools import ChatParameters, without_neutral_tools
from parrot_backend.wire.transforms import Transform
from parrot_backend.wire.unicode import Unicode

Objective = Literal["latency", "throughput", "ttft", "tpot"]
Concurrency = Annotated[int, Field(ge=1, le=2**31 - 1)]
Tags = Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=64)]

SESSION_HEADER = "x-parrot-session"
CALL_HEADER = "x-parrot-call"
CLAIMED_HEADER = "x-parrot-claimed"
THREAD_HEADER = "x-parrot-thread"
GROUP_HEADER = "x-parrot-group"
GROUP_SIZE_HEADER = "x-parrot-group-size"
SITE_HEADER = "x-parrot-site"
OBJECTIVE_HEADER = "x-parrot-objective"
TAGS_HEADER = "x-parrot-tags"
IDEMPOTENCY_HEADER = "idempotency-key"


class StreamOptions(WireModel):
    """OpenAI's options of a streamed answer."""

    include_usage: bool = False


class ChatRequest(ChatParameters):
    """Body of `/v1/chat/completions` and of `/v1/sessions/{id}/calls`."""

    messages: Messages[ChatMessage]
    n: int | None = Field(default=None, ge=1, le=128)
    stream: bool = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_neutral(cls, body: Any) -> Any:
        """Requests that ask for the same are equal, and only other values are refused."""
        return without_neutral_tools(without_neutral(body)) if isinstance(body, dict) else body

    def choices(self) -> list["ChatRequest"]:
        """One request for each choice; the seed of each is one above that of the one before."""
        if self.n is None:
            return [self]
        seeds = choice_seeds(self.seed, self.n)
        return [self.model_copy(update={"n": None, "seed": seed}) for seed in seeds]

    def claim_key(self) -> str:
        """The request's identity: equal keys ask for the same generation.

        A digest, so that what is kept of a prompt for comparison is short.
        """
        asked = self.model_dump_json(exclude={"stream", "stream_options"}, exclude_none=True)
        return blake2b(asked.encode(), digest_size=16).hexdigest()


class SemanticCall(ChatParameters):
    """One planned LLM request; it writes one variable.

    It runs when each of the groups that `concurrency` names has room for it.
    """

    id: Name
    messages: Messages[SemanticMessage]
    output: Name
    concurrency: list[Name] = Field(default_factory=list, max_length=16)

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"call '{self.id}'"


class Output(WireModel):
    """A variable that somebody will read, and what they want of it.

    Outputs of one `group` are wanted together: only the last of them to be ready matters.
    """

    variable: Name
    objective: Objective = "latency"
    group: Name | None = None


class Program(WireModel):
    """Semantic calls over Semantic Variables, submitted together; acyclic through its variables.

    `variables` declares inputs: a value, or null for one that is set later. `texts` are literal texts
    that segments name by their index. `concurrency` says how many calls of each group may run at
    once; a later program of the session can use the group, and name it again with another number.
    """

    variables: dict[Name, Unicode | None] = Field(default_factory=dict, max_length=10_000)
    texts: list[Unicode] = Field(default_factory=list, max_length=10_000)
    concurrency: dict[Name, Concurrency] = Field(default_factory=dict, max_length=10_000)
    transforms: list[Transform] = Field(default_factory=list, max_length=10_000)
    calls: list[SemanticCall] = Field(default_factory=list, max_length=10_000)
    outputs: list[Output] = Field(default_factory=list, max_length=10_000)


class CallScope(WireModel):
    """What a client knows of where a request belongs; it travels in headers.

    Requests of one `thread` share a session that is opened at the first of them. Those of one
    `group` are siblings, of which only the last to end matters; `group_size` is how many there are,
    where that is known. A `site` is where calls that are made alike come from, such as a template. The
    `tags` are those of the session that is opened.
    """

    thread: Name | None = None
    group: Name | None = None
    group_size: int | None = Field(default=None, ge=1, le=2**31 - 1)
    site: Name | None = None
    objective: Objective | None = None
    tags: Tags = Field(default_factory=list)

    def headers(self) -> dict[str, str]:
        """It as a request's headers."""
        values = {
            THREAD_HEADER: self.thread,
            GROUP_HEADER: self.group,
            GROUP_SIZE_HEADER: self.group_size,
            SITE_HEADER: self.site,
            OBJECTIVE_HEADER: self.objective,
            TAGS_HEADER: ",".join(quote(tag, safe="") for tag in self.tags) or None,
        }
        return {name: str(value) for name, value in values.items() if value is not None}


class SessionRequest(WireModel):
    """Body of `POST /v1/sessions`; a program saves a round trip.

    `objective` is that of requests which state none, `thread` the one that the session belongs to.
    When its client gives no sign of life for `grace` seconds, what is planned and nobody has asked for
    stops; without it, the server's own bound holds. The sessions that `closes` names are closed, where
    there are such: a client saves requests. A client that names the session (`id`) can close it also
    where it was never answered.
    """

    id: Name | None = None
    program: Program | None = None
    objective: Objective = "latency"
    thread: Name | None = None
    tags: Tags = Field(default_factory=list)
    closes: list[Name] = Field(default_factory=list, max_length=1000)
    grace: float | None = Field(default=None, ge=1, le=600)


class SessionsAlive(WireModel):
    """A client's heartbeat: the sessions whose plans it still wants."""

    sessions: list[Name] = Field(max_length=1000)
