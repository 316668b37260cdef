"""Wire types of raw text: completions without a chat template, and the tokenizer's own work."""

from collections.abc import Iterator
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from parrot_backend.wire.messages import ChatMessage, Messages
from parrot_backend.wire.parameters import (
    GenerationParameters,
    TokenId,
    WireModel,
    choice_seeds,
    without_neutral,
)
from parrot_backend.wire.protocol import ChatRequest, StreamOptions
from parrot_backend.wire.tools import Tool
from parrot_backend.wire.unicode import Unicode, checked_json

Tokens = Annotated[list[TokenId], Field(min_length=1, max_length=2**18)]
Prompt = str | Tokens

# OpenAI's default of this route; a text without a chat template seldom ends by itself.
_DEFAULT_MAX_TOKENS = 16
_MAX_CHOICES = 4096
_MAX_TEXTS = 4096
_MAX_CHARACTERS = 2**17
_Texts = str | Annotated[list[str], Field(max_length=_MAX_TEXTS)]
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (None, 1),
    "echo": (None, False),
    "suffix": (None, ""),
}


def _checked(prompt: str | list[Any]) -> str | list[Any]:
    """Around the union, for errors in it would be named after its members."""
    texts = [prompt] if isinstance(prompt, str) else prompt
    if not texts or not isinstance(texts[0], int):
        checked_json(texts)
    return prompt


class PromptRequest(GenerationParameters):
    """One generation that goes on from a raw prompt, text or token ids."""

    prompt: Annotated[Prompt, AfterValidator(_checked)]


LLMRequest = ChatRequest | PromptRequest
"""What one call generates an answer to."""


class CompletionRequest(GenerationParameters):
    """Body of `/v1/completions`.

    `logprobs` is sent as a number, how many alternatives each token is told with; here it is what
    `/v1/chat/completions` has in its place.
    """

    prompt: Annotated[
        str | Tokens | Annotated[list[Prompt], Field(min_length=1, max_length=_MAX_CHOICES)],
        AfterValidator(_checked),
    ]
    n: int | None = Field(default=None, ge=1, le=128)
    stream: bool = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _as_chats_have_it(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        rest = {k: v for k, v in body.items() if k not in _NEUTRAL or v not in _NEUTRAL[k]}
        count = rest.pop("logprobs", None)
        if type(count) is int:
            rest |= {"logprobs": True, "top_logprobs": count}
        elif count is not None:
            raise ValueError("logprobs is a number here: of the alternatives told for each token")
        return without_neutral(rest)

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if len(self.prompts()) * (self.n or 1) > _MAX_CHOICES:
            raise ValueError(f"{_MAX_CHOICES} answers are the most for one request: send several")
        return self

    def prompts(self) -> list[Prompt]:
        """The prompts, one or many, in order."""
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)

    def choices(self) -> list[PromptRequest]:
        """One request for each choice: the first prompt's `n`, then the next one's."""
        shared = {name: getattr(self, name) for name in GenerationParameters.model_fields}
        shared["max_tokens"] = self.max_tokens or _DEFAULT_MAX_TOKENS
        return [
            PromptRequest(**{**shared, "seed": seed}, prompt=prompt)
            for prompt in self.prompts()
            for seed in choice_seeds(self.seed, self.n)
        ]


class TokenizeRequest(WireModel):
    """Body of `/v1/tokenize`: a text, or messages, as the model's chat template has them.

    Or several texts: whoever cuts a document by tokens asks for its words.
    """

    model: Unicode | None = None
    prompt: Annotated[_Texts, AfterValidator(_checked)] | None = None
    messages: Messages[ChatMessage] | None = None
    tools: list[Tool] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        if self.tools and self.messages is None:
            raise ValueError("tools go with messages")
        if isinstance(self.prompt, list) and sum(map(len, self.prompt)) > _MAX_CHARACTERS:
            raise ValueError(
                f"{_MAX_CHARACTERS} characters are the most for several texts: send several requests"
            )
        return self

    def requests(self) -> Iterator[LLMRequest]:
        """A request with this prompt, or one for each."""
        if self.prompt is None:
            yield ChatRequest(messages=self.messages or [], tools=self.tools)
            return
        for text in self.prompt if isinstance(self.prompt, list) else [self.prompt]:
            yield PromptRequest(prompt=text)


class TokenizeAnswer(WireModel):
    """A prompt's token ids, or those of each of several, and how many they are together.

    `max_model_len` is the most that one of this model may have, its answer included, where that is
    known.
    """

    tokens: list[int] | list[list[int]]
    count: int
    max_model_len: int | None = None
