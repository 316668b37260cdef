"""The chat model."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, closing
from typing import Any, Self, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.utils import from_env, secret_from_env
from pydantic import AliasChoices, ConfigDict, Field, SecretStr, model_validator

from parrot_integrations import __version__
from parrot_integrations.client import ParrotClient, shared_client
from parrot_integrations.langchain.errors import model_errors
from parrot_integrations.langchain.messages import to_wire
from parrot_integrations.langchain.results import PROVIDER, ChunkTranslator, chat_result
from parrot_integrations.parameters import check_one_choice, merged_parameters

# They decide how an answer is fetched, not what it is.
_TRANSPORT_KWARGS = {"stream", "stream_options", "stream_usage"}


class ChatParrot(BaseChatModel):
    """Chat model of a Parrot backend.

    Setup:
        Install `parrot-integrations[langchain]`. For a backend that is started for you on this
        machine, install `parrot-integrations[langchain,backend]`; for one that runs already
        (`parrot serve`), name its address.

        ```bash
        pip install 'parrot-integrations[langchain,backend]'
        export PARROT_BASE_URL="http://127.0.0.1:8000"  # only for a backend that runs already
        ```

    Key init args — completion params:
        model: str | None
            Name of the model. None for the one that the backend serves.
        temperature: float | None
            Sampling temperature; 0 is greedy.
        max_tokens: int | None
            Most tokens to generate.
        top_p, top_k, seed, stop:
            Nucleus, most likely tokens, seed of the random numbers, stop strings.

    Key init args — client params:
        base_url: str | None
            Address of the backend. If not passed in, PARROT_BASE_URL; without either, a managed
            backend is started at the first call and ended with this process.
        api_key: SecretStr | None
            API key. If not passed in, PARROT_API_KEY.
        timeout: float
            Longest wait for the next byte of an answer, in seconds.
        max_retries: int
            How often a request is sent again.

    See the full list of supported init args and their descriptions in the params section.

    Instantiate:
        ```python
        from parrot_integrations.langchain import ChatParrot

        llm = ChatParrot(temperature=0, max_tokens=64)
        ```

    Invoke:
        ```python
        messages = [
            ("system", "You are a helpful translator. Translate the user's sentence to French."),
            ("human", "I love programming."),
        ]
        llm.invoke(messages)
        ```

    Stream:
        ```python
        for chunk in llm.stream(messages):
            print(chunk.text, end="")
        ```

    Async:
        ```python
        await llm.ainvoke(messages)

        async for chunk in llm.astream(messages):
            print(chunk.text, end="")

        await llm.abatch([messages, messages])
        ```

    Token usage:
        ```python
        message = llm.invoke(messages)
        message.usage_metadata
        ```

        ```python
        {
            "input_tokens": 33,
            "output_tokens": 64,
            "total_tokens": 97,
            "input_token_details": {"cache_read": 32},
        }
        ```

        `cache_read` counts the tokens of the prompt that were found in the backend's prefix cache.

    Response metadata:
        ```python
        message.response_metadata
        ```

        ```python
        {
            "finish_reason": "length",
            "model_name": "smollm2-135m-instruct",
            "model_provider": "parrot",
        }
        ```
    """

    model_config = ConfigDict(populate_by_name=True, extra="forbid")

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

    seed: int | None = None
    """Seed of the random numbers: the same request with the same seed gets the same answer."""

    stop: list[str] | str | None = Field(
        default=None, validation_alias=AliasChoices("stop", "stop_sequences")
    )
    """Strings that end the answer; they are not part of it."""

    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the request, as they are."""

    streaming: bool = False
    """Whether `invoke` streams, so that token callbacks are called."""

    stream_usage: bool = True
    """Whether a stream ends with the usage."""

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

    @model_validator(mode="after")
    def _set_chat_parrot_version(self) -> Self:
        self._add_version("parrot-integrations", __version__)
        return self

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
    def _requested_model(self) -> str | None:
        """A managed backend serves our model and no other, under a name of its own choice."""
        return self.model if self.client.base_url else None

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

    @property
    def _llm_type(self) -> str:
        return "parrot-chat"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {"model_name": self.model, **self.parameters()}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        parameters = self.parameters(stop, **kwargs)
        known = {
            "ls_provider": PROVIDER,
            "ls_model_type": "chat",
            "ls_model_name": parameters.get("model") or self.model,
            "ls_temperature": parameters.get("temperature"),
            "ls_max_tokens": parameters.get("max_tokens"),
            "ls_stop": _as_list(parameters.get("stop")),
        }
        return cast(LangSmithParams, {k: v for k, v in known.items() if v is not None})

    def parameters(self, stop: list[str] | str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Everything of a request but its messages and how it is streamed.

        Args:
            stop: stop strings of this call; they replace the model's own.
            kwargs: arguments of this call. None stands for the backend's default; names that are
                not known here are sent as they are, and the backend refuses them by name.
        """
        own = {
            "model": self._requested_model,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "seed": self.seed,
            "stop": self.stop,
        }
        call = {name: value for name, value in kwargs.items() if name not in _TRANSPORT_KWARGS}
        return merged_parameters(own, self.model_kwargs, {"stop": stop} if stop else {}, call)

    def request_body(
        self, messages: list[BaseMessage], stop: list[str] | str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The chat request that a call with these arguments sends.

        Raises:
            ValueError: a message or content that is not supported, named.
        """
        return {
            "messages": [to_wire(message) for message in messages],
            **self.parameters(stop, **kwargs),
        }

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        body = self.request_body(messages, stop, **kwargs)
        with model_errors():
            return chat_result(self.client.chat(body))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        body = self.request_body(messages, stop, **kwargs)
        with model_errors():
            return chat_result(await self.client.achat(body))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        body = self._stream_body(messages, stop, **kwargs)
        translator = ChunkTranslator()
        with model_errors(), closing(self.client.stream_chat(body)) as events:
            for event in events:
                if (chunk := translator.text(event)) is not None:
                    if run_manager:
                        run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk
        yield translator.last()

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        body = self._stream_body(messages, stop, **kwargs)
        translator = ChunkTranslator()
        with model_errors():
            async with aclosing(self.client.astream_chat(body)) as events:
                async for event in events:
                    if (chunk := translator.text(event)) is not None:
                        if run_manager:
                            await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                        yield chunk
        yield translator.last()

    def _stream_body(
        self, messages: list[BaseMessage], stop: list[str] | None, **kwargs: Any
    ) -> dict[str, Any]:
        body = self.request_body(messages, stop, **kwargs)
        check_one_choice(body)
        if kwargs.get("stream_usage", self.stream_usage):
            body["stream_options"] = {"include_usage": True}
        return body


def _as_list(stop: list[str] | str | None) -> list[str] | None:
    return [stop] if isinstance(stop, str) else stop
