"""How `ChatParrot` gets its answers."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Self
from uuid import UUID

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
    Callbacks,
)
from langchain_core.language_models import BaseChatModel, LangSmithParams, ModelProfile
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.tools import BaseTool
from pydantic import model_validator

from parrot_integrations import __version__
from parrot_integrations.client.fields import CONFIG
from parrot_integrations.client.parameters import check_one_choice
from parrot_integrations.langchain.models.errors import model_errors
from parrot_integrations.langchain.models.messages import to_wire
from parrot_integrations.langchain.models.prefetch import may_run_ahead, submitted
from parrot_integrations.langchain.models.profile import PROFILE, with_context_length
from parrot_integrations.langchain.models.results import (
    ChunkTranslator,
    chat_result,
    combined_outputs,
)
from parrot_integrations.langchain.models.settings import ParrotSettings
from parrot_integrations.langchain.models.streams import achunks_of, chunks_of
from parrot_integrations.langchain.models.tools import wire_tools
from parrot_integrations.langchain.scope import scope_of
from parrot_integrations.langchain.siblings import SiblingCalls, siblings


class BaseChatParrot(SiblingCalls, ParrotSettings, BaseChatModel):
    """The part of `ChatParrot` that asks: whole and streamed, one prompt and many."""

    model_config = CONFIG

    logprobs: bool | None = None
    """Whether to tell the probability of each token, in `response_metadata["logprobs"]`."""

    top_logprobs: int | None = None
    """How many of the most likely tokens to tell beside each token, at most 20."""

    streaming: bool = False
    """Whether `invoke` streams, so that token callbacks are called."""

    stream_usage: bool = True
    """Whether a stream ends with the usage."""

    @model_validator(mode="after")
    def _set_chat_parrot_version(self) -> Self:
        self._add_version("parrot-integrations", __version__)
        return self

    @property
    def _llm_type(self) -> str:
        return "parrot-chat"

    def _own_parameters(self) -> dict[str, Any]:
        logprobs = {"logprobs": self.logprobs, "top_logprobs": self.top_logprobs}
        return {**super()._own_parameters(), **logprobs}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return self._traced("chat", stop, **kwargs)

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

    def _resolve_model_profile(self) -> ModelProfile:
        return PROFILE.copy()

    def served_profile(self) -> ModelProfile:
        """`profile`, and what only the backend knows and is asked now: the model's context length.

        For middleware that reckons with it: `ChatParrot(profile=ChatParrot().served_profile())`.

        Raises:
            ModelError: the backend can't be reached, or does not serve the model.
        """
        with model_errors():
            models = self.client.models()
        return with_context_length(self.profile or PROFILE, models, self._requested_model)

    def get_num_tokens_from_messages(
        self,
        messages: list[BaseMessage],
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool] | None = None,
    ) -> int:
        """The number of tokens of the prompt that messages become, tools included.

        Raises:
            ModelError: the backend can't be reached, or does not serve the model.
        """
        wired = [to_wire(message) for message in messages]
        return len(self._tokenize(messages=wired, tools=wire_tools(tools) if tools else None))

    def generate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        *,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        run_name: str | None = None,
        run_id: UUID | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """`generate` as always; the backend gets several prompts at once."""
        told: dict[str, Any] = {
            "tags": tags,
            "metadata": metadata,
            "run_name": run_name,
            "run_id": run_id,
        }
        run: Callable[..., LLMResult] = super().generate
        client = self.client_for(kwargs)
        if len(messages) < 2 or not may_run_ahead(self, client):
            return run(messages, stop, callbacks, **told, **kwargs)
        with submitted(client, messages, self.parameters(stop, **kwargs)):
            return run(messages, stop, callbacks, **told, **kwargs)

    async def agenerate(
        self, messages: list[list[BaseMessage]], *args: Any, **kwargs: Any
    ) -> LLMResult:
        """As `BaseChatModel.agenerate`; the backend learns that the prompts are one batch."""
        with siblings(messages):
            return await super().agenerate(messages, *args, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        body = self.request_body(messages, stop, **kwargs)
        with model_errors():
            return chat_result(self.client_for(kwargs).chat(body, scope_of(run_manager)))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        body = self.request_body(messages, stop, **kwargs)
        with model_errors():
            return chat_result(await self.client_for(kwargs).achat(body, scope_of(run_manager)))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        body = self._stream_body(messages, stop, **kwargs)
        events = self.client_for(kwargs).stream_chat(body, scope_of(run_manager))
        yield from chunks_of(events, ChunkTranslator(), run_manager)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        body = self._stream_body(messages, stop, **kwargs)
        events = self.client_for(kwargs).astream_chat(body, scope_of(run_manager))
        async with aclosing(achunks_of(events, ChunkTranslator(), run_manager)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _combine_llm_outputs(self, llm_outputs: list[dict[str, Any] | None], /) -> dict[str, Any]:
        return combined_outputs(llm_outputs)

    def _streaming_disabled(self, **kwargs: Any) -> bool:
        """Several answers can't be streamed; only where a stream is asked for, that is an error."""
        several = self.parameters(**kwargs).get("n", 1) > 1 and not kwargs.get("stream")
        return several or super()._streaming_disabled(**kwargs)

    def _stream_body(
        self, messages: list[BaseMessage], stop: list[str] | None, **kwargs: Any
    ) -> dict[str, Any]:
        body = self.request_body(messages, stop, **kwargs)
        check_one_choice(body)
        if kwargs.get("stream_usage", self.stream_usage):
            body["stream_options"] = {"include_usage": True}
        return body
