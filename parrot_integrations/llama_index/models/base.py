"""What `Parrot` is told, what it knows of its model, and the requests that it makes."""

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, LLMMetadata, MessageRole
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.prompts import BasePromptTemplate
from pydantic import AliasChoices, BaseModel, Field, PrivateAttr, SecretStr, model_validator

from parrot_integrations.client.chat.formats import class_schema, response_format
from parrot_integrations.client.errors import NotFoundError
from parrot_integrations.client.fields import DESCRIBED, ModelFields, key_of_environment
from parrot_integrations.client.parameters import check_one_choice
from parrot_integrations.llama_index.models.messages import to_wire
from parrot_integrations.llama_index.models.metadata import ServedMetadata
from parrot_integrations.llama_index.models.tokenizer import ServedTokenizer
from parrot_integrations.llama_index.segments import rendered_messages, rendered_prompt

_NOT_NEEDED = "is not needed: a backend's model chats, calls tools and follows schemas"
_ELSEWHERE = {
    "api_base": "is base_url here: the backend's address, without /v1",
    "is_chat_model": _NOT_NEEDED,
    "is_function_calling_model": _NOT_NEEDED,
    "should_use_structured_outputs": _NOT_NEEDED,
    "reuse_client": "is not needed: connections are always reused",
    "tokenizer": "is set for all of LlamaIndex: Settings.tokenizer = llm.tokenizer",
}
"""What the arguments are here that OpenAI's classes have in LlamaIndex."""


class BaseParrot(ModelFields, FunctionCallingLLM):
    """The part of `Parrot` that asks nothing yet: settings, metadata, request bodies."""

    model_config = DESCRIBED

    temperature: float | None = Field(default=None, ge=0, le=2)
    """Sampling temperature, from 0 (greedy) to 2; None for the model's own default."""

    max_tokens: int = Field(
        default=256, gt=0, validation_alias=AliasChoices("max_tokens", "max_completion_tokens")
    )
    """Most tokens to generate. Always sent, for LlamaIndex packs prompts so that this many tokens are
    left for the answer."""

    logprobs: bool | None = None
    """Whether to tell the probability of each token, in `ChatResponse.logprobs`."""

    top_logprobs: int | None = None
    """How many of the most likely tokens to tell for each token, at most 20."""

    additional_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the request, as they are."""

    context_window: int | None = Field(default=None, gt=0)
    """Tokens of prompt and answer together; None to ask the backend."""

    api_key: SecretStr | None = Field(default_factory=key_of_environment, exclude=True)
    """API key, where the backend wants one. If not passed in, PARROT_API_KEY."""

    default_headers: Mapping[str, str] | None = Field(default=None, exclude=True)
    """Headers of every request. No dictionary or event has them: they may be credentials."""

    _served: dict[str, Any] | None = PrivateAttr(default=None)
    _tokenizer: ServedTokenizer | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _known_otherwise(cls, data: Any) -> Any:
        """Tells what the arguments of LlamaIndex's own classes are called here.

        A class's name, which it writes into the dictionaries that it makes of components, is none.
        """
        if type(data) is not dict:
            return data
        if told := [f"{name} {hint}" for name, hint in _ELSEWHERE.items() if name in data]:
            raise ValueError("; ".join(told))
        return {name: value for name, value in data.items() if name != "class_name"}

    @classmethod
    def class_name(cls) -> str:
        """Name in serialized components."""
        return "Parrot"

    @property
    def metadata(self) -> LLMMetadata:
        """What is known of the model.

        Its context window and its name the backend is asked for, once and when they are first read,
        unless they are given: a `ParrotError` where it can't be reached or does not serve the model.
        """
        told = {"context_window": self.context_window, "model_name": self.model}
        if (
            self.context_window is None
        ):  # it is then asked in any case, and its name is the exact one
            told = {}
        return ServedMetadata.lazily(
            self._told_by_backend,
            num_output=self._parameters()["max_tokens"],
            is_chat_model=True,
            is_function_calling_model=True,
            **{name: value for name, value in told.items() if value is not None},
        )

    @property
    def tokenizer(self) -> ServedTokenizer:
        """The model's own tokenizer, a function of a text, for `Settings.tokenizer`."""
        if self._tokenizer is None:
            self._tokenizer = ServedTokenizer(self.client, self._requested_model)
        return self._tokenizer

    def to_payload(self) -> dict[str, Any]:
        """What events tell about this LLM: no credentials, and no question to the backend."""
        return {
            "class_name": self.class_name(),
            "model_name": self._served["id"] if self._served else self.model,
            "is_chat_model": True,
            **self._parameters(),
        }

    def _get_prompt(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """The framework's, and what it was made of."""
        text = super()._get_prompt(prompt, **prompt_args)
        return rendered_prompt(text, prompt, prompt_args, self)

    def _get_messages(self, prompt: BasePromptTemplate, **prompt_args: Any) -> list[ChatMessage]:
        """As `_get_prompt`."""
        messages = super()._get_messages(prompt, **prompt_args)
        return rendered_messages(messages, prompt, prompt_args, self)

    def _user(self, prompt: str, formatted: bool) -> list[ChatMessage]:
        """The messages of a completion's prompt."""
        if not formatted and self.completion_to_prompt is not None:
            prompt = self.completion_to_prompt(prompt)
        return [ChatMessage(role=MessageRole.USER, content=prompt)]

    def _body(self, messages: Sequence[ChatMessage], **kwargs: Any) -> dict[str, Any]:
        """The request that a call with these arguments sends, where it is not streamed.

        Raises:
            ValueError: a message or content that is not supported, named.
        """
        return {"messages": to_wire(messages), **self._parameters(**kwargs)}

    def _stream_body(self, messages: Sequence[ChatMessage], **kwargs: Any) -> dict[str, Any]:
        body = self._body(messages, **kwargs)
        check_one_choice(body)
        return {**body, "stream_options": {"include_usage": True}}

    def _parameters(self, **kwargs: Any) -> dict[str, Any]:
        merged = self.merged(self.additional_kwargs, kwargs)
        merged.setdefault("max_tokens", self.max_tokens)
        schema = merged.get("response_format")
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            merged["response_format"] = response_format(class_schema(schema))
        return merged

    def _own_parameters(self) -> dict[str, Any]:
        own = {
            "max_tokens": self.max_tokens,
            "logprobs": self.logprobs,
            "top_logprobs": self.top_logprobs,
        }
        return {**super()._own_parameters(), **own}

    def _told_by_backend(self) -> dict[str, Any]:
        served = self._ask_once()
        return {"context_window": served["max_model_len"], "model_name": served["id"]}

    def _ask_once(self) -> dict[str, Any]:
        if self._served is None:
            models = self.client.models()
            named = [each for each in models if self._requested_model in (None, each["id"])]
            if not named:
                served = ", ".join(each["id"] for each in models)
                raise NotFoundError(f"The backend does not serve {self.model!r}, but: {served}.")
            self._served = named[0]
        return self._served
