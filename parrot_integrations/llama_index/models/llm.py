"""The LLM."""

from collections.abc import Callable, Sequence
from contextlib import aclosing, closing
from typing import Any, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.bridge.pydantic import (
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    model_validator,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.tools.types import BaseTool

from parrot_integrations.client import ParrotClient, shared_client
from parrot_integrations.client.errors import NotFoundError
from parrot_integrations.client.parameters import check_one_choice, merged_parameters
from parrot_integrations.llama_index.models.messages import (
    ChunkTranslator,
    chat_response,
    completion,
    to_wire,
)

F = TypeVar("F", bound=Callable[..., Any])

_chat_events: Callable[[F], F] = llm_chat_callback()
_completion_events: Callable[[F], F] = llm_completion_callback()


class Parrot(FunctionCallingLLM):
    """LLM of a Parrot backend.

    Args:
        model: name of the model; None for the one that the backend serves.
        temperature: sampling temperature; 0 is greedy, None the model's own default.
        max_tokens: most tokens to generate. Always sent, because LlamaIndex packs prompts so that
            this many tokens are left for the answer.
        top_p, top_k, min_p, frequency_penalty, presence_penalty, repetition_penalty, seed, stop: as in
            the request; None the model's own default.
        additional_kwargs: further fields of the request, as they are.
        context_window: tokens of prompt and answer together; None to ask the backend.
        base_url: address of the backend; defaults to PARROT_BASE_URL, and without either a managed
            backend is started at the first call and ended with this process.
        api_key: defaults to PARROT_API_KEY.
        timeout: longest wait for the next byte of an answer, in seconds.
        max_retries: how often a request is sent again.

    Examples:
        `pip install 'parrot-integrations[llama-index,backend]'`

        ```python
        from parrot_integrations.llama_index import Parrot

        llm = Parrot(temperature=0, max_tokens=64)
        print(llm.complete("The capital of France is"))
        ```
    """

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(
        default=None, description="Name of the model; None for the one that the backend serves."
    )
    temperature: float | None = Field(
        default=None, ge=0, le=2, description="Sampling temperature; 0 is greedy."
    )
    max_tokens: int = Field(default=256, gt=0, description="Most tokens to generate.")
    top_p: float | None = Field(default=None, description="Nucleus of the sampled tokens.")
    top_k: int | None = Field(default=None, description="Sample from this many tokens.")
    min_p: float | None = Field(default=None, description="Least part of the likeliest token.")
    frequency_penalty: float | None = Field(
        default=None, description="Penalty of a generated token, for each time that it came."
    )
    presence_penalty: float | None = Field(
        default=None, description="Penalty of tokens that were generated."
    )
    repetition_penalty: float | None = Field(
        default=None, description="Divides tokens that were generated or in the prompt."
    )
    seed: int | None = Field(default=None, description="Seed of the random numbers.")
    stop: list[str] | None = Field(default=None, description="Strings that end the answer.")
    additional_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Further fields of the request, as they are."
    )
    context_window: int | None = Field(
        default=None, gt=0, description="Tokens of prompt and answer; None to ask the backend."
    )
    base_url: str | None = Field(
        default=None, description="Address of the backend; None for a managed one."
    )
    api_key: SecretStr | None = Field(
        default=None, exclude=True, description="API key, where the backend wants one."
    )
    timeout: float = Field(
        default=600.0, gt=0, description="Longest wait for the next byte, in seconds."
    )
    max_retries: int = Field(default=2, ge=0, description="How often a request is sent again.")

    _served: dict[str, Any] | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _without_class_name(cls, data: Any) -> Any:
        """LlamaIndex writes it into the dictionaries that it makes of components."""
        return {k: v for k, v in data.items() if k != "class_name"} if type(data) is dict else data

    @classmethod
    def class_name(cls) -> str:
        """Name in serialized components."""
        return "Parrot"

    @property
    def client(self) -> ParrotClient:
        """The client of this LLM's backend, shared by all LLMs with the same settings."""
        return shared_client(
            self.base_url,
            api_key=self.api_key,
            model=self.model,
            timeout=self.timeout,
            max_retries=self.max_retries,
        )

    @property
    def _requested_model(self) -> str | None:
        """A managed backend serves our model and no other, under a name of its own choice."""
        return self.model if self.client.base_url else None

    @property
    def metadata(self) -> LLMMetadata:
        """What the backend says about the model; asked once, with a wait, when first needed.

        Raises:
            ParrotError: the backend cannot be reached, or does not serve the model.
        """
        served = self._ask_once()
        return LLMMetadata(
            context_window=self.context_window or served["max_model_len"],
            num_output=self.max_tokens,
            is_chat_model=True,
            is_function_calling_model=False,
            model_name=served["id"],
        )

    def to_payload(self) -> dict[str, Any]:
        """What events tell about this LLM: no credentials, and no question to the backend."""
        return {
            "class_name": self.class_name(),
            "model_name": self._served["id"] if self._served else self.model,
            "is_chat_model": True,
            **self._parameters(),
        }

    @_chat_events
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answers a chat."""
        return chat_response(self.client.chat(self._body(messages, **kwargs)))

    @_chat_events
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answers a chat."""
        return chat_response(await self.client.achat(self._body(messages, **kwargs)))

    @_chat_events
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answers a chat in pieces."""
        return self._stream(messages, **kwargs)

    @_chat_events
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        """Answers a chat in pieces."""
        return self._astream(messages, **kwargs)

    @_completion_events
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answers one user message."""
        body = self._body(self._user(prompt, formatted), **kwargs)
        return completion(chat_response(self.client.chat(body)))

    @_completion_events
    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        """Answers one user message."""
        body = self._body(self._user(prompt, formatted), **kwargs)
        return completion(chat_response(await self.client.achat(body)))

    @_completion_events
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        """Answers one user message in pieces."""
        responses = self._stream(self._user(prompt, formatted), **kwargs)
        return (completion(response) for response in responses)

    @_completion_events
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Answers one user message in pieces."""
        responses = self._astream(self._user(prompt, formatted), **kwargs)
        return (completion(response) async for response in responses)

    def _stream(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        translator = ChunkTranslator()
        with closing(self.client.stream_chat(self._stream_body(messages, **kwargs))) as events:
            for event in events:
                yield translator.response(event)

    async def _astream(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        translator = ChunkTranslator()
        body = self._stream_body(messages, **kwargs)
        async with aclosing(self.client.astream_chat(body)) as events:
            async for event in events:
                yield translator.response(event)

    def _user(self, prompt: str, formatted: bool) -> list[ChatMessage]:
        if not formatted and self.completion_to_prompt is not None:
            prompt = self.completion_to_prompt(prompt)
        return [ChatMessage(role=MessageRole.USER, content=prompt)]

    def _parameters(self, **kwargs: Any) -> dict[str, Any]:
        own = {
            "model": self._requested_model,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "frequency_penalty": self.frequency_penalty,
            "presence_penalty": self.presence_penalty,
            "repetition_penalty": self.repetition_penalty,
            "top_k": self.top_k,
            "seed": self.seed,
            "stop": self.stop,
        }
        return merged_parameters(own, self.additional_kwargs, kwargs)

    def _body(self, messages: Sequence[ChatMessage], **kwargs: Any) -> dict[str, Any]:
        return {"messages": to_wire(messages), **self._parameters(**kwargs)}

    def _stream_body(self, messages: Sequence[ChatMessage], **kwargs: Any) -> dict[str, Any]:
        body = self._body(messages, **kwargs)
        check_one_choice(body)
        return {**body, "stream_options": {"include_usage": True}}

    def _ask_once(self) -> dict[str, Any]:
        if self._served is None:
            models = self.client.models()
            named = [each for each in models if self._requested_model in (None, each["id"])]
            if not named:
                served = ", ".join(each["id"] for each in models)
                raise NotFoundError(f"The backend does not serve {self.model!r}, but: {served}.")
            self._served = named[0]
        return self._served

    def _prepare_chat_with_tools(
        self, tools: Sequence[BaseTool], *_: Any, **__: Any
    ) -> dict[str, Any]:
        raise NotImplementedError(
            "Tools are not supported by this version of Parrot. Agents that write their tool calls "
            "as text, such as ReActAgent, work."
        )
