"""`Endpoint`: the one interface between serving and whatever runs chats."""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from parrot_backend.engines.base import Delta, EngineStats, ModelCard
from parrot_backend.wire.text_protocol import LLMRequest

EndpointState = Literal["starting", "ready", "draining", "dead", "failed"]
"""It takes jobs while it is `ready`. A `dead` one may come back, by way of `starting`; one that has
`failed` does not."""


HANG_SECONDS = 60.0
"""An engine that gets nowhere for so long is started anew, or asked how it is where it isn't ours."""

Sharing = Literal["batch", "computed", "slot"]
"""What jobs with one beginning compute once: it all, also where they come together (`batch`); what
another job has computed before they start (`computed`); or only what the slot that they run in has
(`slot`)."""


@dataclass(frozen=True, slots=True)
class Card:
    """What an endpoint can do.

    It runs `slots` jobs at once; none while it may not be asked. Where it `preempts`, one of a higher
    priority takes the place of one of a lower. Where it `pins`, `expect` does something. Where it is
    `repeatable`, the same greedy or seeded job gives the same tokens again, on whatever it runs beside.
    `kv_tokens` is how many tokens it keeps the keys and values of, where that is known. `engine` names
    what runs the model.
    """

    model: ModelCard
    slots: int
    preempts: bool = True
    pins: bool = True
    repeatable: bool = True
    sharing: Sharing = "batch"
    kv_tokens: int | None = None
    engine: str = "parrot"


@dataclass(frozen=True, slots=True)
class Job:
    """One generation. Higher `priority` goes first, then who came first.

    Where somebody waits for it alone it is `interactive`, and beside it others only have room that is
    left over. Prefixes are shared within a `tenant` and never between two; at most `kv_share` of the KV
    memory is the tenant's, cached prefixes included. `draft` is a hint: the tokens of a text that the
    answer is likely to repeat, in whole or in part.
    """

    request: LLMRequest
    priority: int = 0
    tenant: str = ""
    draft: Sequence[int] = ()
    kv_share: float = 1.0
    interactive: bool = False


class Endpoint(Protocol):
    """Runs chats on one model; belongs to one event loop."""

    async def start(self) -> None:
        """Make it ready; called once, before anything else.

        Raises:
            ParrotError: it can't be, and why.
        """
        ...

    @property
    def card(self) -> Card:
        """What it can do; known from the first start on.

        Raises:
            UnavailableError: it has not started yet.
        """
        ...

    @property
    def state(self) -> EndpointState:
        """Whether it takes jobs."""
        ...

    @property
    def why(self) -> str | None:
        """Why it takes no jobs, where it has been lost, in words for operators."""
        ...

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` after every change of `state` or of its card's slots, at once and in its event
        loop.

        What ran on one that is lost fails just behind it.
        """
        ...

    def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        """Run a job; closing the iterator ends it and frees what it held.

        It ends with a delta that has a finish reason, or with an error.

        Raises:
            InvalidRequestError: the request can't be run as it is.
            ContextLengthError: its prompt is too long.
            EngineError: the model failed under it.
            EndpointLostError: the endpoint died or hangs, or is not ready; on another, or when it is
                ready again, it may run.
            UnavailableError: it is draining or closed.
        """
        ...

    async def tokenize(self, request: LLMRequest) -> list[int]:
        """The tokens of a request's prompt.

        Raises:
            InvalidRequestError: the model's template refuses it, or it is no valid text.
            ContextLengthError: it is too long.
            EndpointLostError: as for `generate`.
        """
        ...

    def expect(self, examples: Sequence[LLMRequest], tenant: str) -> Callable[[], None]:
        """A hint: what the prompts of all examples begin with will be needed, until the result is
        called."""
        ...

    def stats(self) -> EngineStats:
        """The load and the counts, at this moment."""
        ...

    def drain(self) -> None:
        """Take no more jobs; those that run go on."""
        ...

    async def aclose(self) -> None:
        """Stop; what is running fails with `UnavailableError`."""
        ...
