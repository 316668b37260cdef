"""`Parrot` in the shadow: it is asked as ever, and answers with markers."""

import copy
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Any, ClassVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.prompts import PromptTemplate
from pydantic import BaseModel

from parrot_integrations.llama_index.compiling.shadow.ending import ShadowEnd
from parrot_integrations.llama_index.compiling.shadow.ledger import Ledger, key_of
from parrot_integrations.llama_index.models.llm import Parrot
from parrot_integrations.llama_index.models.structured import LLMArguments
from parrot_integrations.llama_index.segments import carried

_CORE = "llama_index.core."


class ShadowParrot(Parrot):
    """Plans what it is asked. Made by `shadow_of`."""

    ledger: ClassVar[Ledger]
    original: ClassVar[Parrot]

    @property
    def metadata(self) -> LLMMetadata:
        """The original's, which asks the backend for it once."""
        return self.original.metadata

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Plans the call."""
        text = self._answer(messages, **kwargs)
        message = ChatMessage(role=MessageRole.ASSISTANT, content=text)
        return ChatResponse(message=message, delta=text)

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Plans the call."""
        return self.chat(messages, **kwargs)

    def stream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> Generator[ChatResponse, None, None]:
        """Plans the call."""
        response = self.chat(messages, **kwargs)
        return (each for each in [response])

    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> AsyncGenerator[ChatResponse, None]:
        """Plans the call."""
        return _one(self.chat(messages, **kwargs))

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Plans the call."""
        text = self._answer(self._user(prompt, formatted), **kwargs)
        return CompletionResponse(text=text, delta=text)

    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        """Plans the call."""
        return self.complete(prompt, formatted, **kwargs)

    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> Generator[CompletionResponse, None, None]:
        """Plans the call."""
        response = self.complete(prompt, formatted, **kwargs)
        return (each for each in [response])

    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> AsyncGenerator[CompletionResponse, None]:
        """Plans the call."""
        return _one(self.complete(prompt, formatted, **kwargs))

    def structured_predict(
        self,
        output_cls: type[Any],
        prompt: PromptTemplate,
        llm_kwargs: LLMArguments = None,
        **prompt_args: Any,
    ) -> Any:
        """Plans the call; the object is known when the run has made it."""
        if not self._constrains:
            raise ShadowEnd("a structured prediction", "is made by a program of the framework's")
        messages, kwargs = self._structured_call(output_cls, prompt, llm_kwargs, prompt_args)
        key = key_of(self._body(messages, **kwargs))
        text = self._answer(messages, **kwargs)
        awaited = AwaitedObject(output_cls)
        return self.ledger.predicted(key, text, awaited) if _is_plain(output_cls) else awaited

    async def astructured_predict(
        self,
        output_cls: type[Any],
        prompt: PromptTemplate,
        llm_kwargs: LLMArguments = None,
        **prompt_args: Any,
    ) -> Any:
        """Plans the call."""
        return self.structured_predict(output_cls, prompt, llm_kwargs, **prompt_args)

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> Any:
        """Ends the shadow: the framework takes an answer without calls for a failure, and goes on."""
        raise ShadowEnd("a tool call", "is made by an answer that only the run has")

    def _answer(self, messages: Sequence[ChatMessage], **kwargs: Any) -> str:
        if (reason := _obstacle(self)) is not None:
            raise ShadowEnd("the LLM", reason)
        body = self._body(messages, **kwargs)
        return self.ledger.answer(self.client_for(kwargs), body, carried(messages))


class AwaitedObject:
    """Stands for an object that an LLM will predict; whoever looks into it ends the shadow."""

    def __init__(self, kind: type[Any]) -> None:
        object.__setattr__(self, "_kind", kind)

    def __getattribute__(self, name: str) -> Any:
        kind = object.__getattribute__(self, "_kind")
        if name == "__class__":  # for isinstance
            return kind
        raise ShadowEnd(
            kind.__qualname__,
            "is predicted by an LLM, and its fields are not there before it has answered",
            "What comes behind it is planned when the object is there.",
        )

    def __str__(self) -> str:
        return str(self.text)  # ends it


def _is_plain(kind: type[Any]) -> bool:
    """Whether nothing of a model's class is asked when the framework reads it."""
    decorators = kind.__pydantic_decorators__
    own = decorators.field_serializers, decorators.model_serializers, decorators.computed_fields
    return kind.model_dump_json is BaseModel.model_dump_json and not any(own)


def has_own_prompts(llm: Parrot) -> bool:
    """Whether prompts become others by code that is not the framework's."""
    own = (llm.completion_to_prompt, llm.messages_to_prompt)
    return not all(str(getattr(each, "__module__", "")).startswith(_CORE) for each in own)


def _obstacle(llm: Parrot) -> str | None:
    """Why the LLM's calls can't start before the framework asks for them; None where they can."""
    if has_own_prompts(llm):
        return "has a function of yours for its prompts, which only the run may call"
    if llm.output_parser is not None and not type(llm.output_parser).__module__.startswith(_CORE):
        return "has a parser of yours, which only the run may ask"
    if getattr(llm, "rate_limiter", None) is not None:
        return "has a rate limiter, which planned calls would overrun"
    if llm.http_async_client is not None and llm.http_client is None:
        return "has an http_async_client but no http_client, which the plan could be sent over"
    return None


async def _one(response: Any) -> AsyncGenerator[Any, None]:
    yield response


def shadow_of(llm: Parrot, ledger: Ledger) -> ShadowParrot:
    """A copy that plans its calls in the ledger."""
    shadow: Any = copy.copy(llm)
    object.__setattr__(shadow, "__class__", ShadowParrot)
    for name in vars(shadow).keys() - Parrot.model_fields.keys():
        del vars(shadow)[name]  # what somebody has put in a method's place
    vars(shadow).update(ledger=ledger, original=llm)
    return shadow  # type: ignore[no-any-return]
