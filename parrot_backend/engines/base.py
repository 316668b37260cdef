"""`Engine`: the one interface between serving and whatever runs the model."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from parrot_backend.protocol import ChatMessage

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a client must know of the model: `context_length` is tokens, prompt and answer together."""

    name: str
    context_length: int


@dataclass(frozen=True, slots=True)
class Grammar:
    """What a generation's text must match as a whole.

    `source` is a JSON schema, a regular expression (Rust's syntax) or a grammar (llguidance's dialect
    of Lark). `param` is the request's field that it came from, for errors.
    """

    kind: Literal["json_schema", "regex", "lark"]
    source: str
    param: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. Temperature 0 is greedy; `top_k` 0, `top_p` 1 and `min_p` 0 are off.

    With a `seed` the same prompt gives the same tokens, whatever else is in the batch. The presence
    and frequency penalties count what was generated, the repetition penalty the prompt as well.
    `logprobs` is the number of alternatives that each token's are told with; None tells none.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None
    grammar: Grammar | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One generation. Higher `priority` goes first, then who came first.

    Prefixes are shared within a `tenant` and never between two.
    """

    prompt: list[int]
    sampling: Sampling = field(default_factory=Sampling)
    priority: int = 0
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token, its bytes in the text, and the natural logarithm of its probability."""

    token: int
    content: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """What a token was chosen from: the model's own distribution, before anything of `Sampling`.

    `top` are the most likely tokens, the likeliest first.
    """

    chosen: Candidate
    top: tuple[Candidate, ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """What one step added. Only the last delta of a generation has a `finish_reason`.

    `cached_tokens` of the prompt came from the prefix tree; it is known from the first delta on.
    Text that may be the beginning of a stop string, or of an unfinished character, is held back, so
    `text` can be empty while `tokens` is not. `logprobs`, where asked for, are those of `tokens`
    without the token that ends the generation, which is no part of its text.
    """

    text: str
    tokens: tuple[int, ...]
    cached_tokens: int
    finish_reason: FinishReason | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counts since start, and the load now. Tokens are counted once each.

    `kv_used_tokens` are held by running sequences, `kv_cached_tokens` only by the prefix tree;
    used + cached + free is the capacity.
    """

    running: int = 0
    waiting: int = 0
    kv_capacity_tokens: int = 0
    kv_used_tokens: int = 0
    kv_cached_tokens: int = 0
    tokens_prefilled: int = 0
    tokens_shared: int = 0
    tokens_generated: int = 0
    tokens_evicted: int = 0


class Engine(Protocol):
    """Runs one model for many generations at once."""

    @property
    def model(self) -> ModelCard:
        """The model that is loaded."""
        ...

    def encode(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Apply the chat template, generation prompt included. Callable from any thread.

        Raises:
            InvalidRequestError: the model's template refuses the messages.
        """
        ...

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """Queue a generation and yield what it produces; closing it frees its memory at once.

        Raises:
            InvalidRequestError: a parameter is out of range, or nothing can match the grammar.
            ContextLengthError: the prompt leaves no room for one token.
            OverloadedError: the waiting queue is full.
            EngineError: the model failed under the request.
        """
        ...

    def stats(self) -> EngineStats:
        """The load and the counts, at this moment."""
        ...

    async def aclose(self) -> None:
        """Stop; what is running fails with `UnavailableError`."""
        ...
