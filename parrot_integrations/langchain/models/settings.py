"""What the chat model and the LLM have in common: where the backend is, and how answers are sampled."""

from collections.abc import Mapping
from typing import Any, Literal, cast

from langchain_core.language_models import LangSmithParams
from langchain_core.utils import from_env, secret_from_env
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr

from parrot_integrations.client import ParrotClient, shared_client
from parrot_integrations.client.parameters import merged_parameters
from parrot_integrations.langchain.models.errors import model_errors
from parrot_integrations.langchain.models.results import PROVIDER

# They decide how an answer is fetched or traced, not what it is.
_NO_PARAMETERS = {
    "stream",
    "stream_options",
    "stream_usage",
    "ls_structured_output_format",
    "structured_output_format",
}


STRICT = ConfigDict(populate_by_name=True, extra="forbid")
"""For each class of its own: of several bases, pydantic takes the last one's configuration."""


class ParrotSettings(BaseModel):
    """Settings of a model that a Parrot backend serves, and the requests that they make."""

    model: str | None = Field(default=None, validation_alias=AliasChoices("model", "model_name"))
    """Name of the model; None for the one that the backend serves."""

    temperature: float | None = None
    """Sampling temperature, from 0 (greedy) to 2; None for the backend's default."""

    max_tokens: int | None = Field(
        default=None, validation_alias=AliasChoices("max_tokens", "max_completion_tokens")
    )
    """Most tokens to generate; None for as many as fit the context."""

    top_p: float | None = None
    """Sample from the most likely tokens that together have this probability."""

    top_k: int | None = None
    """Sample from this many of the most likely tokens."""

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

    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the request, as they are."""

    base_url: str | None = Field(default_factory=from_env("PARROT_BASE_URL", default=None))
    """Address of the backend; None for a managed one."""

    api_key: SecretStr | None = Field(
        default_factory=secret_from_env("PARROT_API_KEY", default=None)
    )
    """API key, where the backend wants one."""

    timeout: float = Field(
        default=600.0, gt=0, validation_alias=AliasChoices("timeout", "request_timeout")
    )
    """Longest wait for the next byte of an answer, in seconds."""

    max_retries: int = Field(default=2, ge=0)
    """How often a request is sent again when the backend cannot be reached or is overloaded."""

    @property
    def model_name(self) -> str | None:
        """Same as `model`."""
        return self.model

    @property
    def client(self) -> ParrotClient:
        """The client of this model's backend, shared by all models with the same settings."""
        api_key = self.api_key.get_secret_value() if self.api_key else None
        return shared_client(
            self.base_url,
            api_key=api_key,
            model=self.model,
            timeout=self.timeout,
            max_retries=self.max_retries,
        )

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

    def parameters(self, stop: list[str] | str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Everything of a request but its prompt and how it is streamed.

        Args:
            stop: stop strings of this call; they replace the model's own.
            kwargs: arguments of this call. None stands for the backend's default; names that are
                not known here are sent as they are, and the backend refuses them by name.
        """
        call = {name: value for name, value in kwargs.items() if name not in _NO_PARAMETERS}
        return merged_parameters(
            self._own_parameters(), self.model_kwargs, {"stop": stop} if stop else {}, call
        )

    def _own_parameters(self) -> dict[str, Any]:
        """The settings under the wire's names."""
        return {
            "model": self._requested_model,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "seed": self.seed,
            "stop": self.stop,
            "n": self.n,
        }

    @property
    def _requested_model(self) -> str | None:
        """A managed backend serves our model and no other, under a name of its own choice."""
        return self.model if self.client.base_url else None

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
