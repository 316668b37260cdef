"""What the chat model and the LLM have in common: where the backend is, and how answers are sampled."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast

from langchain_core.language_models import BaseLanguageModel, LangSmithParams
from pydantic import AliasChoices, Field, model_validator

from parrot_integrations.client.fields import CONFIG, ModelFields
from parrot_integrations.langchain.models.arguments import with_model_kwargs
from parrot_integrations.langchain.models.errors import model_errors
from parrot_integrations.langchain.models.results import PROVIDER
from parrot_integrations.langchain.models.tools import wire_response_format

# What decides how an answer is streamed or traced.
_NOT_SENT = {"stream_usage", "ls_structured_output_format", "structured_output_format"}


class ParrotSettings(ModelFields):
    """What LangChain's classes have beside the settings of `ModelFields`, and the requests of both."""

    model_config = CONFIG

    not_sent: ClassVar[frozenset[str]] = ModelFields.not_sent | _NOT_SENT

    max_tokens: int | None = Field(
        default=None, validation_alias=AliasChoices("max_tokens", "max_completion_tokens")
    )
    """Most tokens to generate; where the model's own config says none, as many as fit the context."""

    n: int | None = Field(default=None, ge=1)
    """How many answers to generate to each prompt; `generate` has them all, `invoke` the first."""

    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the request, as they are; init arguments that are not known end here."""

    @model_validator(mode="before")
    @classmethod
    def _take_unknown_as_model_kwargs(cls, values: Any) -> Any:
        return with_model_kwargs(values, cls.model_fields) if isinstance(values, dict) else values

    @property
    def model_name(self) -> str | None:
        """Same as `model`."""
        return self.model

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
        merged = self.merged({**self.model_kwargs, **({"stop": stop} if stop else {})}, kwargs)
        if isinstance(schema := merged.get("response_format"), type):
            merged["response_format"] = wire_response_format(schema)
        return merged

    def _own_parameters(self) -> dict[str, Any]:
        """The settings under the wire's names."""
        return {**super()._own_parameters(), "max_tokens": self.max_tokens, "n": self.n}

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
        with model_errors():
            return self.client.tokenize(self._tokenize_body(**prompt))


def _as_list(stop: list[str] | str | None) -> list[str] | None:
    return [stop] if isinstance(stop, str) else stop
