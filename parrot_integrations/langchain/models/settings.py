"""What the chat model and the LLM have in common: where the backend is, and how answers are sampled."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, cast

import httpx
from langchain_core.language_models import BaseLanguageModel, LangSmithParams
from langchain_core.utils import from_env, secret_from_env
from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)

from parrot_integrations.client import ParrotClient, shared_client
from parrot_integrations.client.parameters import merged_parameters
from parrot_integrations.client.transport.settings import is_named
from parrot_integrations.client.transport.timeouts import timeouts
from parrot_integrations.langchain.models.arguments import with_model_kwargs
from parrot_integrations.langchain.models.errors import model_errors
from parrot_integrations.langchain.models.results import PROVIDER
from parrot_integrations.langchain.models.tools import wire_response_format

# They decide how an answer is fetched or traced, not what it is.
_NO_PARAMETERS = {
    "timeout",
    "extra_headers",
    "stream",
    "stream_options",
    "stream_usage",
    "ls_structured_output_format",
    "structured_output_format",
}


def _timeout(given: Any) -> float | tuple[float | None, ...] | None:
    """A number and None as they are, else plain numbers, which can be serialized and compared."""
    waits = timeouts(given)
    return waits.read if given is None or isinstance(given, int | float) else tuple(waits)


CONFIG = ConfigDict(
    populate_by_name=True,
    extra="forbid",
    arbitrary_types_allowed=True,
    hide_input_in_errors=True,  # it may be a key
)
"""For each class of its own: of several bases, pydantic takes the last one's configuration."""


class ParrotSettings(BaseModel):
    """Settings of a model that a Parrot backend serves, and the requests that they make."""

    model_config = CONFIG

    model: str | None = Field(default=None, validation_alias=AliasChoices("model", "model_name"))
    """Name of the model; None for the one that the backend serves."""

    temperature: float | None = None
    """Sampling temperature, from 0 (greedy) to 2. Like top-p, top-k, min-p, the repetition and the
    frequency penalty and the most tokens, it is as the model's own generation config says where it is
    None."""

    max_tokens: int | None = Field(
        default=None, validation_alias=AliasChoices("max_tokens", "max_completion_tokens")
    )
    """Most tokens to generate; where the model's own config says none, as many as fit the context."""

    top_p: float | None = None
    """Sample from the most likely tokens that together have this probability."""

    top_k: int | None = None
    """Sample from this many of the most likely tokens."""

    min_p: float | None = None
    """Sample from tokens that are at least so likely, as a part of the likeliest one's probability."""

    repetition_penalty: float | None = None
    """Above 1, by how much less likely a token becomes that prompt or answer has; 1 is off."""

    presence_penalty: float | None = None
    """From -2 to 2: how much less likely a token becomes when it has occurred in the answer."""

    frequency_penalty: float | None = None
    """From -2 to 2: how much less likely a token becomes with every time that it has occurred."""

    seed: int | None = None
    """Seed of the random numbers: the same request with the same seed gets the same answer."""

    stop: list[str] | str | None = Field(
        default=None, validation_alias=AliasChoices("stop", "stop_sequences")
    )
    """Strings that end the answer; they are not part of it."""

    n: int | None = Field(default=None, ge=1)
    """How many answers to generate to each prompt; `generate` has them all, `invoke` the first."""

    logit_bias: dict[int, float] | None = None
    """Token ids, and from -100 (never) to 100 by how much more likely each becomes."""

    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the request, as they are; init arguments that are not known end here."""

    extra_body: Mapping[str, Any] | None = None
    """Further fields of the request, which go before all others of the same name."""

    base_url: str | None = Field(default_factory=from_env("PARROT_BASE_URL", default=None))
    """Address of the backend. If not passed in, PARROT_BASE_URL; without either, a managed backend is
    started at the first call and ended with this process."""

    api_key: SecretStr | None = Field(
        default_factory=secret_from_env("PARROT_API_KEY", default=None)
    )
    """API key, where the backend wants one. If not passed in, PARROT_API_KEY."""

    timeout: Annotated[float | tuple[float | None, ...] | None, BeforeValidator(_timeout)] = Field(
        default=600.0, validation_alias=AliasChoices("timeout", "request_timeout")
    )
    """Longest wait for the next byte of an answer, in seconds; None for as long as it takes. Also
    `(connect, read)` or an `httpx.Timeout`, which is kept as `(connect, read, write, pool)`."""

    max_retries: int | None = Field(default=None, ge=0)
    """How often a request is sent again when the backend cannot be reached or is overloaded; None
    for twice."""

    default_headers: Mapping[str, str] | None = None
    """Headers of every request. They are part of what is traced and serialized: a key belongs in
    `api_key`."""

    http_client: httpx.Client | None = Field(default=None, exclude=True)
    """Client of your own for sync calls, used as it is and never closed: its proxies, certificates
    and hooks hold, and its timeouts unless they are httpx's defaults or `timeout` is given.
    Serialized and unpickled models are without it."""

    http_async_client: httpx.AsyncClient | None = Field(default=None, exclude=True)
    """As `http_client`, for async calls. Each is for its own kind of call: give both if you need
    both."""

    @model_validator(mode="before")
    @classmethod
    def _take_unknown_as_model_kwargs(cls, values: Any) -> Any:
        return with_model_kwargs(values, cls.model_fields) if isinstance(values, dict) else values

    def __getstate__(self) -> dict[Any, Any]:
        """Without the httpx clients, which can't be pickled."""
        state = super().__getstate__()
        own = {"http_client": None, "http_async_client": None}
        return {**state, "__dict__": {**state["__dict__"], **own}}

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """With the same httpx clients: they hold sockets, which can't be copied."""
        memo = {} if memo is None else memo
        memo |= {id(each): each for each in (self.http_client, self.http_async_client) if each}
        return super().__deepcopy__(memo)

    @property
    def model_name(self) -> str | None:
        """Same as `model`."""
        return self.model

    @property
    def client(self) -> ParrotClient:
        """The client of this model's backend, shared by all models with the same settings."""
        return shared_client(
            self.base_url,
            api_key=self.api_key,
            model=self.model,
            timeout=self.timeout,
            max_retries=self.max_retries,
            default_headers=self.default_headers,
            http_client=self.http_client,
            http_async_client=self.http_async_client,
        )

    def client_for(self, arguments: Mapping[str, Any]) -> ParrotClient:
        """The client for a call with these arguments, of which some may say how to send it."""
        return self.client.with_options(arguments)

    @property
    def lc_secrets(self) -> dict[str, str]:
        """Which argument is a secret, and the environment variable that has it."""
        return {"api_key": "PARROT_API_KEY"}

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Yes: all settings are plain values."""
        return True

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """Where serialized models find their class."""
        return ["parrot_integrations", "langchain"]

    def get_token_ids(self, text: str) -> list[int]:
        """Token ids of a text, from the model's own tokenizer.

        Raises:
            ModelError: the backend can't be reached, or does not serve the model.
        """
        custom = cast("BaseLanguageModel[Any]", self).custom_get_token_ids
        return self._tokenize(prompt=text) if custom is None else custom(text)

    def parameters(self, stop: list[str] | str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Everything of a request but its prompt and how it is streamed.

        Args:
            stop: stop strings of this call; they replace the model's own.
            kwargs: arguments of this call. None stands for the backend's default; names that are
                not known here are sent as they are, and the backend refuses them by name.
        """
        call = {name: value for name, value in kwargs.items() if name not in _NO_PARAMETERS}
        extra = call.pop("extra_body", self.extra_body) or {}
        merged = merged_parameters(
            self._own_parameters(), self.model_kwargs, {"stop": stop} if stop else {}, call, extra
        )
        if isinstance(schema := merged.get("response_format"), type):
            merged["response_format"] = wire_response_format(schema)
        return merged

    def _own_parameters(self) -> dict[str, Any]:
        """The settings under the wire's names."""
        return {
            "model": self._requested_model,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "seed": self.seed,
            "stop": self.stop,
            "n": self.n,
            "logit_bias": self.logit_bias,
        }

    @property
    def _requested_model(self) -> str | None:
        """A managed backend serves our model and no other, under a name of its own choice."""
        return self.model if is_named(self.base_url) else None

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {"model_name": self.model, **self.parameters()}

    def _traced(
        self, kind: Literal["chat", "llm"], stop: list[str] | None, **kwargs: Any
    ) -> LangSmithParams:
        """What tracing tells of a call."""
        parameters = self.parameters(stop, **kwargs)
        known = {
            "ls_provider": PROVIDER,
            "ls_model_type": kind,
            "ls_model_name": parameters.get("model") or self.model,
            "ls_temperature": parameters.get("temperature"),
            "ls_max_tokens": parameters.get("max_tokens"),
            "ls_stop": _as_list(parameters.get("stop")),
        }
        return cast(LangSmithParams, {k: v for k, v in known.items() if v is not None})

    def _tokenize(self, **prompt: Any) -> list[int]:
        """Token ids of a `prompt`, or of `messages` in the model's chat template."""
        body = {**prompt, "model": self._requested_model}
        with model_errors():
            return self.client.tokenize({k: v for k, v in body.items() if v is not None})


def _as_list(stop: list[str] | str | None) -> list[str] | None:
    return [stop] if isinstance(stop, str) else stop
