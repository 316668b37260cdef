"""What a model class of any framework is told: where the backend is, and how answers are sampled."""

import os
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import httpx
from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
)

from parrot_integrations.client.http import ParrotClient
from parrot_integrations.client.parameters import merged_parameters
from parrot_integrations.client.shared import shared_client
from parrot_integrations.client.transport.settings import is_named
from parrot_integrations.client.transport.timeouts import timeouts


def _timeout(given: Any) -> float | tuple[float | None, ...] | None:
    """A number and None as they are, else plain numbers, which can be serialized and compared."""
    waits = timeouts(given)
    return waits.read if given is None or isinstance(given, int | float) else tuple(waits)


def key_of_environment() -> SecretStr | None:
    """PARROT_API_KEY."""
    key = os.environ.get("PARROT_API_KEY")
    return None if key is None else SecretStr(key)


CONFIG = ConfigDict(
    populate_by_name=True,
    extra="forbid",
    arbitrary_types_allowed=True,
    hide_input_in_errors=True,  # it may be a key
    use_attribute_docstrings=False,
)
"""For each class of its own: of several bases, pydantic takes the last one's configuration."""

DESCRIBED = ConfigDict(**{**CONFIG, "use_attribute_docstrings": True})
"""For those that declare fields. Others are not to be searched: programs make classes of them."""


class ModelFields(BaseModel):
    """Settings of a model that a Parrot backend serves, and the requests that they make.

    How many tokens are generated at most, every class says itself: their defaults differ.
    """

    model_config = DESCRIBED

    not_sent: ClassVar[frozenset[str]] = frozenset(
        {"timeout", "extra_headers", "stream", "stream_options"}
    )
    """Arguments of a call that decide how its answer is fetched, not what it is."""

    model: str | None = Field(default=None, validation_alias=AliasChoices("model", "model_name"))
    """Name of the model; None for the one that the backend serves."""

    temperature: float | None = None
    """Sampling temperature, from 0 (greedy) to 2. Like top-p, top-k, min-p, the repetition and the
    frequency penalty and the most tokens, it is as the model's own generation config says where it is
    None."""

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

    logit_bias: dict[int, float] | None = None
    """Token ids, and from -100 (never) to 100 by how much more likely each becomes."""

    extra_body: Mapping[str, Any] | None = None
    """Further fields of the request, which go before all others of the same name."""

    base_url: str | None = Field(default_factory=lambda: os.environ.get("PARROT_BASE_URL"))
    """Address of the backend. If not passed in, PARROT_BASE_URL; without either, a managed backend is
    started at the first call and ended with this process."""

    api_key: SecretStr | None = Field(default_factory=key_of_environment)
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

    def __getstate__(self) -> dict[Any, Any]:
        """Without the httpx clients, which can't be pickled."""
        if self.http_client is None and self.http_async_client is None:
            return super().__getstate__()
        return self.model_copy(
            update={"http_client": None, "http_async_client": None}
        ).__getstate__()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """With the same httpx clients: they hold sockets, which can't be copied."""
        memo = {} if memo is None else memo
        memo |= {id(each): each for each in (self.http_client, self.http_async_client) if each}
        return super().__deepcopy__(memo)

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

    def merged(self, further: Mapping[str, Any], call: Mapping[str, Any]) -> dict[str, Any]:
        """Everything of a request but its prompt and how it is streamed.

        Args:
            further: fields that go before the settings.
            call: arguments of the call, which go before those. None stands for the backend's
                default; names that are not known here are sent as they are, and the backend refuses
                them by name.
        """
        call = {name: value for name, value in call.items() if name not in self.not_sent}
        extra = call.pop("extra_body", self.extra_body) or {}
        return merged_parameters(self._own_parameters(), further, call, extra)

    def _own_parameters(self) -> dict[str, Any]:
        """The settings under the wire's names."""
        return {
            "model": self._requested_model,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "seed": self.seed,
            "stop": self.stop,
            "logit_bias": self.logit_bias,
        }

    @property
    def _requested_model(self) -> str | None:
        """A managed backend serves our model and no other, under a name of its own choice."""
        return self.model if is_named(self.base_url) else None

    def _tokenize_body(self, **prompt: Any) -> dict[str, Any]:
        body = {**prompt, "model": self._requested_model}
        return {k: v for k, v in body.items() if v is not None}
