"""`Engine`: the one interface between serving and whatever runs the model."""

import hashlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from parrot_backend import __version__
from parrot_backend.wire.messages import ChatMessage
from parrot_backend.wire.parameters import OPENAI_DEFAULTS, GenerationConfig
from parrot_backend.wire.tools import Tool

FinishReason = Literal["stop", "length", "tool_calls"]

# How JSON is written in answers, in llguidance's words: one space where people put one, and none
# elsewhere, for a model can't go on with white space for ever.
JSON_STYLE: Mapping[str, bool | str] = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a client must know of the model: `context_length` is tokens, prompt and answer together,
    where that is known.

    A prompt of more than `longest_text` characters, where that is known, has more tokens than that.
    Where a request does not say how to generate, `generation_config` does; None where nobody tells.
    """

    name: str
    context_length: int | None
    quantization: str | None = None
    longest_text: int | None = None
    generation_config: GenerationConfig | None = OPENAI_DEFAULTS

    @property
    def fingerprint(self) -> str:
        """The same wherever the same answers may be expected: model, its numbers and our version."""
        numbers = (self.context_length, self.quantization, self.generation_config)
        served = repr((self.name, numbers, __version__))
        return f"fp_{hashlib.blake2b(served.encode(), digest_size=6).hexdigest()}"


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
    From where `no_stop_after` comes in the text, no `stop` string counts any more.
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
    no_stop_after: str | None = None


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One generation. Higher `priority` goes first, then who came first.

    Where somebody waits for it alone it is `interactive`, and beside it others only have room that is
    left over. Prefixes are shared within a `tenant` and never between two; at most `kv_share` of the KV
    memory is the tenant's, cached prefixes included. `draft` is a hint: the tokens of a text that the
    answer is likely to repeat, in whole or in part.
    """

    prompt: list[int]
    sampling: Sampling = field(default_factory=Sampling)
    priority: int = 0
    tenant: str = ""
    draft: Sequence[int] = ()
    kv_share: float = 1.0
    interactive: bool = False


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
class ToolCallDelta:
    """A piece of call number `index` of an answer; the first has its `id` and `name`, and no other."""

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """What one step added. Only the last delta of a generation has a `finish_reason`.

    `cached_tokens` of the prompt came from the prefix tree; it is known from the first delta on that
    `tells_cached`, and 0 before.
    Text that may be the beginning of a stop string, or of an unfinished character, is held back, so
    `text` can be empty while `tokens` is not. `prompt_tokens` is the length of the prompt, where it is
    told. `logprobs`, where asked for, are those of `tokens`
    without the token that ends the generation, which is no part of its text. `untold_tokens` were
    generated as well, by an engine that tells how many and not which. `started` is when the
    engine began with the prompt, in seconds since the epoch, where it knows.
    """

    text: str
    tokens: tuple[int, ...]
    cached_tokens: int
    finish_reason: FinishReason | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    started: float | None = None
    tool_calls: tuple[ToolCallDelta, ...] = ()
    prompt_tokens: int = 0
    untold_tokens: int = 0
    tells_cached: bool = True


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counts since start, and the load now. Tokens are counted once each.

    Of `tokens_drafted`, which are guesses, `tokens_accepted` were right; each of these, and of the
    `tokens_forced` that a grammar left no choice about, came without a step of its own.
    `tokens_prefilled_ahead` were computed of what was expected: of these a sequence that started found
    `tokens_ahead_used`, and `tokens_ahead_wasted` were forgotten before.
    `kv_shared_tokens`, of the used ones, are held by more than one sequence. `seconds_planning`,
    `seconds_computing` (the forward pass, where it is waited for) and `seconds_choosing` (sampling and
    text) are what the `steps` took.
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
    tokens_drafted: int = 0
    tokens_accepted: int = 0
    tokens_forced: int = 0
    tokens_prefilled_ahead: int = 0
    tokens_ahead_used: int = 0
    tokens_ahead_wasted: int = 0
    kv_shared_tokens: int = 0
    prefix_tree_nodes: int = 0
    steps: int = 0
    seconds_planning: float = 0.0
    seconds_computing: float = 0.0
    seconds_choosing: float = 0.0


class Engine(Protocol):
    """Runs one model for many generations at once."""

    @property
    def model(self) -> ModelCard:
        """The model that is loaded."""
        ...

    @property
    def slots(self) -> int:
        """Generations that it runs at once."""
        ...

    @property
    def dead(self) -> str | None:
        """Why it runs nothing any more, where it has ended by itself; None where it has not."""
        ...

    def encode(
        self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = (), *, fitting: bool = False
    ) -> list[int]:
        """Apply the chat template, generation prompt included. Callable from any thread.

        Where only what fits the context is wanted, it may stop before the end.

        Raises:
            InvalidRequestError: the model's template refuses the messages.
            ContextLengthError: it has to be `fitting`, and is seen not to be.
        """
        ...

    def tokenize(self, text: str, *, fitting: bool = False) -> list[int]:
        """Tokens of a raw text, without chat template. Callable from any thread.

        Where only what fits the context is wanted, it may stop before the end.

        Raises:
            InvalidRequestError: it is not valid Unicode.
            ContextLengthError: it has to be `fitting`, and is seen not to be.
        """
        ...

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """Queue a generation and yield what it produces; closing it frees its memory at once.

        Raises:
            InvalidRequestError: a parameter is out of range, or nothing can match the grammar.
            ContextLengthError: the prompt leaves no room for one token.
            OverloadedError: the waiting queue is full.
            EngineError: the model failed under the request.
            EndpointLostError: the engine has ended by itself.
        """
        ...

    def expect(self, prefix: Sequence[int], tenant: str = "") -> Callable[[], None]:
        """Compute `prefix` where there is room, and evict it last, until the result is called."""
        ...

    def stats(self) -> EngineStats:
        """The load and the counts, at this moment."""
        ...

    async def aclose(self) -> None:
        """Stop; what is running fails with `UnavailableError`."""
        ...
