"""Wire types of what is to be generated, beside the messages. Names and defaults are OpenAI's."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from parrot_backend.wire.unicode import JsonObject, JsonObjectOrText, Unicode


class WireModel(BaseModel):
    """Base of the wire types: an unknown field is an error, never ignored silently."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


def _as_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


def _sorted(bias: dict[int, float] | None) -> dict[int, float] | None:
    """One order for equal biases, as requests are compared by their JSON."""
    return dict(sorted(bias.items())) if bias else bias


TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
Bias = Annotated[float, Field(ge=-100, le=100)]


MaxTokens = Annotated[int, Field(ge=1, le=2**31 - 1)]
Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(gt=0, le=1)]
TopK = Annotated[int, Field(ge=-1, le=2**31 - 1)]
MinP = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
RepetitionPenalty = Annotated[float, Field(ge=0.01, le=100)]


class GenerationConfig(WireModel):
    """How a generation goes, in what a model has defaults for; here these are OpenAI's.

    An answer without `max_tokens` may be as long as the context.
    """

    model_config = ConfigDict(frozen=True)

    temperature: Temperature = 1.0
    top_p: TopP = 1.0
    top_k: TopK = 0
    min_p: MinP = 0.0
    repetition_penalty: RepetitionPenalty = 1.0
    frequency_penalty: Penalty = 0.0
    max_tokens: MaxTokens | None = None


OPENAI_DEFAULTS = GenerationConfig()


class JsonSchema(WireModel):
    """OpenAI's wrapping of a schema. Answers follow it always, `strict` or not."""

    name: str = Field(max_length=64)
    description: Unicode | None = None
    schema_: JsonObject = Field(alias="schema")
    strict: bool | None = None


class JsonObjectFormat(WireModel):
    """The answer is any JSON object."""

    type: Literal["json_object"]


class JsonSchemaFormat(WireModel):
    """The answer is JSON that a schema describes."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class StructuredOutputs(WireModel):
    """What the answer must be, under vLLM's names: exactly one of these.

    A JSON schema (as an object or as text), a regular expression in Rust's syntax, one of some
    texts, or a grammar in llguidance's dialect of Lark.
    """

    json_: JsonObjectOrText = Field(default=None, alias="json")
    regex: Unicode | None = None
    choice: list[Annotated[str, Field(min_length=1)]] | None = Field(default=None, min_length=1)
    grammar: Unicode | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = (self.json_, self.regex, self.choice, self.grammar)
        if sum(value is not None for value in given) != 1:
            raise ValueError("give exactly one of json, regex, choice and grammar")
        return self


class GenerationParameters(WireModel):
    """How one generation goes; what it does not say is the model's to say, see `GenerationConfig`.

    `presence_penalty` and `frequency_penalty` count the tokens generated so far,
    `repetition_penalty` those of the prompt as well. `logit_bias` has token ids as keys.
    """

    model: Unicode | None = None
    max_tokens: MaxTokens | None = Field(
        default=None, validation_alias=AliasChoices("max_tokens", "max_completion_tokens")
    )
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    min_p: MinP | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: RepetitionPenalty | None = None
    logit_bias: Annotated[dict[TokenId, Bias] | None, AfterValidator(_sorted)] = Field(
        default=None, max_length=1024
    )
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)
    stop: Annotated[list[Unicode] | None, BeforeValidator(_as_list)] = Field(
        default=None, max_length=16
    )

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None

    @field_validator("structured_outputs")
    @classmethod
    def _instead_of_response_format(
        cls, outputs: StructuredOutputs | None, others: ValidationInfo
    ) -> StructuredOutputs | None:
        if outputs is not None and others.data.get("response_format"):
            raise ValueError("leave out response_format, or this")
        return outputs

    @field_validator("top_logprobs")
    @classmethod
    def _needs_logprobs(cls, count: int | None, others: ValidationInfo) -> int | None:
        if count and not others.data.get("logprobs"):
            raise ValueError("it needs logprobs: true")
        return count


def choice_seeds(seed: int | None, n: int | None) -> list[int | None]:
    """The seed of each of `n` choices, one above the one before; after the largest the smallest."""
    count = n or 1
    return [None if seed is None else (seed + i + 2**63) % 2**64 - 2**63 for i in range(count)]


# Values that change nothing, whatever the model. Clients send them, also for parameters that are
# refused otherwise.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "presence_penalty": (None, 0),
    "logit_bias": (None, {}),
    "response_format": (None, {"type": "text"}),
    "store": (None, False),
    "service_tier": (None, "auto", "default"),
}
# What OpenAI's clients tell of a request for its owner's books: no value of these changes anything.
_ALWAYS_NEUTRAL = frozenset({"user", "safety_identifier", "metadata"})


def without_neutral(body: Any) -> Any:
    """A request's body without the parameters at values that change nothing."""
    if not isinstance(body, dict):
        return body
    return {
        name: value
        for name, value in body.items()
        if name not in _ALWAYS_NEUTRAL and value not in _NEUTRAL.get(name, ())
    }
